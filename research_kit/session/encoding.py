"""Spans as bytes: each one an OTLP export of its own.

Concatenated, such exports are one export with all their spans, so a batch is a join of bytes. Owns the
translation from OpenTelemetry's spans, before which nothing leaves the process; sends nothing.
"""

from __future__ import annotations

import json
import re

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import ReadableSpan

from research_kit.config import captures_io
from research_kit.session.attribute_names import OBSERVATION
from research_kit.session.span_attributes import span_attributes
from research_kit.session.span_proto import Masker, bare_span, encode_attributes, encode_export
from research_kit.session.spool import SpoolKey

__all__ = ["as_died", "encode_span", "shortened", "span_key"]

DIED = "kernel died"
# What is left of a text that makes a span too large for the server.
_LONGEST_TEXT = 100_000
_CUT = OBSERVATION + "metadata.cut"
_MESSAGE = OBSERVATION + "status_message"
_ERROR_KIND = re.compile(r"[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning)\b|cancelled$|interrupted$")
_IO_PREFIXES = (
    "embedding.embeddings.",
    "embedding.text",
    "gen_ai.completion",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.",
    "input.value",
    OBSERVATION + "input",
    OBSERVATION + "output",
    "langfuse.trace.input",
    "langfuse.trace.output",
    "llm.completions",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompts",
    "output.value",
    "prompts",
    "reranker.",
    "retrieval.documents",
    "traceloop.entity.input",
    "traceloop.entity.output",
)


def span_key(span: ReadableSpan) -> SpoolKey:
    """Return the key of ``span`` in the spool."""
    context = span.get_span_context()
    assert context is not None
    return SpoolKey(context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"))


def encode_span(span: ReadableSpan, mask: Masker) -> bytes:
    """Return ``span`` as an export request, with secrets taken out by ``mask``.

    With ``RESEARCH_KIT_CAPTURE_IO=false`` inputs and outputs go too, whichever library recorded them.
    """
    try:
        return _encode(span, mask)
    except UnicodeEncodeError:  # half of a surrogate pair, which no protocol takes
        return _encode(span, lambda text: mask(text).encode("utf-8", "replace").decode())


def as_died(payload: bytes, end_time_ns: int) -> bytes:
    """Return a span that was open when its process ended, closed as an error.

    Args:
        payload: The span as `encode_span` wrote it while it was open.
        end_time_ns: When the process was last heard of, in nanoseconds since 1970.
    """
    request = ExportTraceServiceRequest.FromString(payload)
    span = _only_span(request)
    span.end_time_unix_nano = max(end_time_ns, span.start_time_unix_nano)
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = DIED
    for key, text in (("level", "ERROR"), ("status_message", DIED)):
        span.attributes.add(key=OBSERVATION + key).value.string_value = text
    content: bytes = request.SerializeToString()
    return content


def shortened(payload: bytes) -> bytes | None:
    """Return a span with its long texts cut, for a server that takes no larger one; None without any."""
    request = ExportTraceServiceRequest.FromString(payload)
    span, cut = _only_span(request), []
    for attribute in span.attributes:
        text = attribute.value.string_value
        if len(text) > _LONGEST_TEXT:
            attribute.value.string_value = json.dumps(f"{text[:_LONGEST_TEXT]}…", ensure_ascii=False)
            cut.append(f"{attribute.key.rpartition('.')[2]} of {len(text)} characters")
    if not cut:
        return None
    span.attributes.add(key=_CUT).value.string_value = json.dumps(", ".join(cut), ensure_ascii=False)
    content: bytes = request.SerializeToString()
    return content


def _encode(span: ReadableSpan, mask: Masker) -> bytes:
    bare, attributes = bare_span(span, mask), span_attributes(span)
    if not captures_io():
        attributes = {key: value for key, value in attributes.items() if not key.startswith(_IO_PREFIXES)}
        if _MESSAGE in attributes:
            attributes[_MESSAGE] = _kind_of(str(attributes[_MESSAGE]))
        bare.status.message = _kind_of(bare.status.message)
        del bare.events[:]
    return encode_export(span, [bare.SerializeToString(), *encode_attributes(attributes, mask)], mask)


def _kind_of(message: str) -> str:
    """Return what kind of error a message tells; what it says beyond that may quote inputs or outputs."""
    known = _ERROR_KIND.match(message)
    return known.group() if known else ""


def _only_span(request: ExportTraceServiceRequest) -> SpanProto:
    span: SpanProto = request.resource_spans[0].scope_spans[0].spans[0]
    return span

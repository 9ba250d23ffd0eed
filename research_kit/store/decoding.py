"""The body of an export request, decoded into spans.

Owns content types, compression and the protobuf encoding; OTLP/JSON is in `otlp_json`. Knows nothing about
what attributes mean. Invariant: a small compressed body cannot fill the memory.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships without types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from research_kit.store.otlp_json import decode_json
from research_kit.store.spans import MAX_NANOSECONDS, Attributes, ExportError, Origin, Problems, Span

__all__ = ["decode_export"]

_MAX_BODY_BYTES = 512 * 1024 * 1024


def decode_export(body: bytes, *, content_type: str, content_encoding: str) -> list[Span]:
    """Decode the body of one export request.

    Raises:
        ExportError: When the body cannot be read or holds a span that cannot be stored.
    """
    if "application/x-protobuf" in content_type:
        decode: Callable[[bytes], list[Span]] = _decode_protobuf
    elif "application/json" in content_type:
        decode = decode_json
    else:
        raise ExportError("Invalid content type")
    if "gzip" in content_encoding and body:
        body = _decompress(body)
    return decode(body) if body else []


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(body, _MAX_BODY_BYTES)
        if decompressor.unconsumed_tail:
            raise ExportError(f"Request body exceeds {_MAX_BODY_BYTES} bytes after decompression")
        # Several gzip members in a row are one valid file; only then the slower general reader is needed.
        return gzip.decompress(body) if decompressor.unused_data else content
    except (zlib.error, EOFError, OSError) as error:
        raise ExportError("Failed to decompress request body") from error


def _decode_protobuf(body: bytes) -> list[Span]:
    try:
        export = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ExportError("Failed to parse OTel Protobuf Trace") from error
    spans: list[Span] = []
    problems = Problems()
    for resource_spans in export.resource_spans:
        resource_attributes = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            origin = Origin(
                resource_attributes=resource_attributes,
                scope_name=scope.name,
                scope_version=scope.version,
                scope_attributes=_attributes(scope.attributes),
            )
            problems.see_scope(scope.name)
            spans.extend(_span_of_protobuf(span, origin, problems) for span in scope_spans.spans)
    problems.raise_if_any(len(spans))
    return spans


def _span_of_protobuf(span: Any, origin: Origin, problems: Problems) -> Span:
    problems.check_ids(span.trace_id, span.span_id)
    return Span(
        origin=origin,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        start_ns=min(span.start_time_unix_nano, MAX_NANOSECONDS),
        end_ns=min(span.end_time_unix_nano, MAX_NANOSECONDS) or None,
        status_code=span.status.code,
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in span.events],
    )


def _attributes(pairs: Iterable[Any]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)

"""The body of an export request, decoded into spans.

Owns content types and the protobuf encoding; OTLP/JSON is in `otlp_json`, compression in `bodies`. Knows
nothing about what attributes mean. Invariant: no body fills the memory, however it is compressed or nested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # ships without types
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships without types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from research_kit.store.bodies import MAX_EXPORT_BYTES, unpacked
from research_kit.store.jsontext import ODD_NUMBERS, compact
from research_kit.store.otlp_json import decode_json
from research_kit.store.spans import MAX_NANOSECONDS, Attributes, ExportError, Origin, Problems, Span
from research_kit.store.wire_size import check_size

__all__ = ["decode_export"]


def decode_export(body: bytes, *, content_type: str, content_encoding: str) -> list[Span]:
    """Decode the body of one export request.

    Raises:
        ExportError: When the body cannot be read or holds a span that cannot be stored.
        ApiError: 413 when it becomes too much, 415 when its encoding is unknown.
    """
    body = unpacked(body, content_encoding, MAX_EXPORT_BYTES)
    content_type = content_type.lower()
    if "application/x-protobuf" in content_type:
        return _decode_protobuf(body)
    if "application/json" in content_type:
        return decode_json(body)
    raise ExportError("Invalid content type")


def _decode_protobuf(body: bytes) -> list[Span]:
    check_size(body)
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
            for span in scope_spans.spans:
                problems.see_span(scope.name, _faults(span))
                spans.append(_span_of_protobuf(span, origin))
    problems.raise_if_any()
    return spans


def _faults(span: Any) -> list[str]:
    ids = (("traceId", span.trace_id), ("spanId", span.span_id))
    return [f"{name}:absent" for name, value in ids if not value]


def _span_of_protobuf(span: Any, origin: Origin) -> Span:
    return Span(
        origin=origin,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        # In this encoding a zero cannot be told from nothing.
        start_ns=min(span.start_time_unix_nano, MAX_NANOSECONDS) or None,
        end_ns=min(span.end_time_unix_nano, MAX_NANOSECONDS) or None,
        status_code=span.status.code,
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in span.events],
    )


def _attributes(pairs: Iterable[Any]) -> Attributes:
    found = {pair.key: _value(pair.value) for pair in pairs}
    return {key: value for key, value in found.items() if value is not None}


def _value(value: Any) -> Any:
    """Read a typed value; one of a type that attributes cannot have stays JSON, as text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    if kind in ("kvlist_value", "bytes_value"):
        return compact(MessageToDict(value))
    if kind == "double_value" and not math.isfinite(value.double_value):
        return ODD_NUMBERS[str(value.double_value)]
    return None if kind is None else getattr(value, kind)

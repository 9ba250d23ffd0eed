"""OpenTelemetry's spans as protobuf, one at a time.

The exporter's own encoder is made for batches: for a single span it translates resource and scope anew, which
costs more than the span itself. Here both are translated once. A test holds the result against that encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

__all__ = ["export_of"]

_IS_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_IS_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def export_of(span: ReadableSpan) -> tuple[ExportTraceServiceRequest, SpanProto]:
    """Return an export request that holds ``span`` alone, and the span in it."""
    request = ExportTraceServiceRequest()
    request.CopyFrom(_envelope(span.resource, span.instrumentation_scope))
    proto = request.resource_spans[0].scope_spans[0].spans.add()
    _fill(proto, span)
    return request, proto


@lru_cache(maxsize=64)
def _envelope(resource: Resource, scope: InstrumentationScope | None) -> ExportTraceServiceRequest:
    context = SpanContext(trace_id=1, span_id=1, is_remote=False)
    bare = ReadableSpan(name="", context=context, resource=resource, instrumentation_scope=scope)
    request: ExportTraceServiceRequest = encode_spans([bare])
    del request.resource_spans[0].scope_spans[0].spans[:]
    return request


def _fill(proto: SpanProto, span: ReadableSpan) -> None:
    context = span.get_span_context()
    assert context is not None
    proto.trace_id = context.trace_id.to_bytes(16, "big")
    proto.span_id = context.span_id.to_bytes(8, "big")
    if context.trace_state:
        proto.trace_state = ",".join(f"{key}={value}" for key, value in context.trace_state.items())
    if span.parent is not None:
        proto.parent_span_id = span.parent.span_id.to_bytes(8, "big")
    proto.flags = _flags(span.parent)
    proto.name = span.name
    # OpenTelemetry counts kinds from 0, the protocol from 1.
    proto.kind = cast("SpanProto.SpanKind.ValueType", span.kind.value + 1)
    proto.start_time_unix_nano = span.start_time or 0
    proto.end_time_unix_nano = span.end_time or 0
    _add_attributes(proto, span.attributes)
    for event in span.events:
        added = proto.events.add(name=event.name, time_unix_nano=event.timestamp)
        _add_attributes(added, event.attributes)
    for link in span.links:
        linked = proto.links.add(
            trace_id=link.context.trace_id.to_bytes(16, "big"),
            span_id=link.context.span_id.to_bytes(8, "big"),
        )
        linked.flags = _flags(link.context)
        _add_attributes(linked, link.attributes)
    proto.status.code = cast("Status.StatusCode.ValueType", span.status.status_code.value)
    proto.status.message = span.status.description or ""
    proto.dropped_attributes_count = span.dropped_attributes


def _flags(context: SpanContext | None) -> int:
    return _IS_KNOWN | _IS_REMOTE if context is not None and context.is_remote else _IS_KNOWN


def _add_attributes(holder: Any, attributes: Mapping[str, Any] | None) -> None:
    add = holder.attributes.add
    for key, value in (attributes or {}).items():
        _set_value(add(key=key).value, value)


def _set_value(target: AnyValue, value: Any) -> None:
    # bool before int: a bool is an int in Python.
    match value:
        case str():
            target.string_value = value
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case bytes():
            target.bytes_value = value
        case Mapping():
            target.kvlist_value.SetInParent()
            for key, item in value.items():
                _set_value(target.kvlist_value.values.add(key=str(key)).value, item)
        case Sequence():
            target.array_value.SetInParent()
            for item in value:
                _set_value(target.array_value.values.add(), item)
        case _:
            target.string_value = str(value)

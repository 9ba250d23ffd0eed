"""OpenTelemetry's spans as bytes of its protocol, one at a time.

The exporter's own encoder is made for batches: for a single span it translates resource and scope anew, which
costs more than the span itself. Here what repeats from span to span is translated once: in this protocol the
bytes of the parts, one after the other, are the bytes of the whole. A test holds the result against that
encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from research_kit.masking import masked_member

__all__ = ["Masker", "bare_span", "encode_attributes", "encode_export"]

Masker: TypeAlias = Callable[[str], str]

_IS_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_IS_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_UNSET = Status()
_INT64 = 2**63
_MAX_REMEMBERED_LENGTH = 256
_REMEMBERED_COUNT = 2048


def encode_export(span: ReadableSpan, parts: Sequence[bytes], mask: Masker) -> bytes:
    """Return an export request that holds one span alone.

    Args:
        span: Where its resource and scope are taken from.
        parts: The span itself, encoded.
        mask: Takes secrets out of what resource and scope say.
    """
    resource_part, scope_part = _envelope(_Same(span.resource), _Same(span.instrumentation_scope), mask)
    content = b"".join(parts)
    scope_head = scope_part + _head(ScopeSpans.SPANS_FIELD_NUMBER, len(content))
    scope_bytes = len(scope_head) + len(content)
    resource_head = resource_part + _head(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER, scope_bytes)
    head = _head(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER, len(resource_head) + scope_bytes)
    return b"".join((head, resource_head, scope_head, content))


def encode_attributes(attributes: Mapping[str, Any], mask: Masker) -> list[bytes]:
    """Return each attribute as a part of an encoded span."""
    return [
        # Ids, types and metadata are on span after span. Only texts are remembered: for a cache the numbers
        # 1, 1.0 and True are one key.
        _remember_attribute(mask, key, value)
        if type(value) is str and len(value) <= _MAX_REMEMBERED_LENGTH
        else _encode_attribute(mask, key, value)
        for key, value in attributes.items()
    ]


def bare_span(span: ReadableSpan, mask: Masker) -> SpanProto:
    """Return ``span`` without its attributes, with secrets taken out by ``mask``."""
    context = span.get_span_context()
    assert context is not None
    proto = SpanProto(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent.span_id.to_bytes(8, "big") if span.parent is not None else b"",
        flags=_flags(span.parent),
        name=_remember_name(mask, span.name),
        # OpenTelemetry counts kinds from 0, the protocol from 1.
        kind=cast("SpanProto.SpanKind.ValueType", span.kind.value + 1),
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        status=_status(span.status, mask),
        dropped_attributes_count=span.dropped_attributes,
    )
    if context.trace_state:
        proto.trace_state = ",".join(f"{key}={value}" for key, value in context.trace_state.items())
    for event in span.events:
        added = proto.events.add(name=mask(event.name), time_unix_nano=event.timestamp)
        _add_attributes(added, event.attributes, mask)
    for link in span.links:
        linked = proto.links.add(
            trace_id=link.context.trace_id.to_bytes(16, "big"),
            span_id=link.context.span_id.to_bytes(8, "big"),
            flags=_flags(link.context),
        )
        _add_attributes(linked, link.attributes, mask)
    return proto


class _Same:
    """Compares by identity: the hash of a resource is computed from all that is in it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@lru_cache(maxsize=64)
def _envelope(resource: _Same, scope: _Same, mask: Masker) -> tuple[bytes, bytes]:
    """Return what comes before the span: in its resource, and in its scope."""
    context = SpanContext(trace_id=1, span_id=1, is_remote=False)
    bare = ReadableSpan(name="", context=context, resource=resource.value, instrumentation_scope=scope.value)
    resource_spans: ResourceSpans = encode_spans([bare]).resource_spans[0]
    scope_spans = resource_spans.scope_spans.pop()
    del scope_spans.spans[:]
    for attribute in (*resource_spans.resource.attributes, *scope_spans.scope.attributes):
        if attribute.value.HasField("string_value"):
            attribute.value.string_value = mask(attribute.value.string_value)
    return resource_spans.SerializeToString(), scope_spans.SerializeToString()


def _head(number: int, length: int) -> bytes:
    """Return what stands before the bytes of a field: its number and type, and their length."""
    head = [number << 3 | 2]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((*head, length))


def _encode_attribute(mask: Masker, key: str, value: Any) -> bytes:
    holder = SpanProto()
    _add_attributes(holder, {key: value}, mask)
    content: bytes = holder.SerializeToString()
    return content


_remember_attribute = lru_cache(maxsize=_REMEMBERED_COUNT)(_encode_attribute)


@lru_cache(maxsize=_REMEMBERED_COUNT)
def _remember_name(mask: Masker, name: str) -> str:
    return mask(name)


def _status(status: trace.Status, mask: Masker) -> Status:
    if status.is_unset:
        return _UNSET
    return Status(
        code=cast("Status.StatusCode.ValueType", status.status_code.value),
        message=mask(status.description or ""),
    )


def _flags(context: SpanContext | None) -> int:
    return _IS_KNOWN | _IS_REMOTE if context is not None and context.is_remote else _IS_KNOWN


def _add_attributes(holder: Any, attributes: Mapping[str, Any] | None, mask: Masker) -> None:
    for key, value in (attributes or {}).items():
        _set_value(holder.attributes.add(key=_remember_name(mask, key)).value, value, mask, key)


def _set_value(target: AnyValue, value: Any, mask: Masker, key: str) -> None:
    # bool before int: a bool is an int in Python.
    match value:
        case str():
            target.string_value = masked_member(mask, key, value)
        case bool():
            target.bool_value = value
        case int():
            _set_number(target, value)
        case float():
            target.double_value = value
        case bytes():
            target.bytes_value = mask(value.decode("latin-1")).encode("latin-1", "replace")
        case Mapping() | Sequence():
            _set_values(target, value, mask, key)
        case _:
            target.string_value = masked_member(mask, key, str(value))


def _set_values(target: AnyValue, value: Mapping[str, Any] | Sequence[Any], mask: Masker, key: str) -> None:
    if isinstance(value, Mapping):
        target.kvlist_value.SetInParent()
        for name, item in value.items():
            _set_value(target.kvlist_value.values.add(key=mask(str(name))).value, item, mask, str(name))
        return
    target.array_value.SetInParent()
    for item in value:
        _set_value(target.array_value.values.add(), item, mask, key)


def _set_number(target: AnyValue, value: int) -> None:
    """Set a whole number; one that the protocol cannot carry becomes text."""
    if -_INT64 <= value < _INT64:
        target.int_value = value
        return
    try:
        target.string_value = str(value)
    except ValueError:  # Python writes no number of thousands of digits
        target.string_value = f"a number of {value.bit_length()} bits"

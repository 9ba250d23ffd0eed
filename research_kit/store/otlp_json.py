"""OTLP/JSON, whose ids are hexadecimal and whose 64-bit integers are decimal text.

Owns reading what may be any JSON at all. Invariant: nothing in the body makes it raise anything but
`ExportError`.
"""

from __future__ import annotations

import json
from typing import Any

from research_kit.store.jsontext import storable
from research_kit.store.spans import MAX_NANOSECONDS, Attributes, ExportError, Origin, Problems, Span

__all__ = ["decode_json"]


def decode_json(body: bytes) -> list[Span]:
    """Decode an export in OTLP/JSON; what is not an object is an export without spans.

    Raises:
        ExportError: When it is no JSON, or holds a span that cannot be stored.
    """
    try:
        export = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ExportError("Failed to parse OTel JSON Trace") from error
    reader = _JsonReader()
    spans = reader.read(export) if isinstance(export, dict) else []
    reader.problems.raise_if_any(len(spans))
    return spans


class _JsonReader:
    """Reads OTLP/JSON, whose ids are hexadecimal and whose 64-bit integers are decimal text."""

    def __init__(self) -> None:
        self.problems = Problems()

    def read(self, export: dict[str, Any]) -> list[Span]:
        spans: list[Span] = []
        for resource_spans in self._list(export, "resourceSpans"):
            resource = resource_spans.get("resource")
            attributes = self._attributes(resource) if isinstance(resource, dict) else {}
            for scope_spans in self._list(resource_spans, "scopeSpans"):
                origin = self._origin(scope_spans.get("scope"), attributes)
                spans.extend(self._span(span, origin) for span in self._list(scope_spans, "spans"))
        return spans

    def _origin(self, scope: object, resource_attributes: Attributes) -> Origin:
        known = scope if isinstance(scope, dict) else {}
        name = _clean(known.get("name"))
        self.problems.see_scope(name)
        return Origin(
            resource_attributes=resource_attributes,
            scope_name=name,
            scope_version=_clean(known.get("version")),
            scope_attributes=self._attributes(known),
        )

    def _span(self, span: dict[str, Any], origin: Origin) -> Span:
        trace_id, span_id = _id(span.get("traceId")), _id(span.get("spanId"))
        before = self.problems.bad_span_count
        self.problems.check_ids(trace_id, span_id)
        status = span.get("status")
        known_status = status if isinstance(status, dict) else {}
        decoded = Span(
            origin=origin,
            trace_id=trace_id,
            span_id=span_id,
            parent_id=_id(span.get("parentSpanId")) or None,
            name=_clean(span.get("name")),
            start_ns=_nanoseconds(span.get("startTimeUnixNano")),
            end_ns=_nanoseconds(span.get("endTimeUnixNano")) or None,
            status_code=_status_code(known_status.get("code")),
            status_message=_clean(known_status.get("message")),
            attributes=self._attributes(span),
            events=[
                (_clean(event.get("name")), self._attributes(event)) for event in self._list(span, "events")
            ],
        )
        # Several faults of one span count as one bad span.
        self.problems.bad_span_count = min(self.problems.bad_span_count, before + 1)
        return decoded

    def _attributes(self, owner: dict[str, Any]) -> Attributes:
        pairs = self._list(owner, "attributes")
        return {_clean(pair.get("key")): _json_value(pair.get("value")) for pair in pairs}

    def _list(self, owner: dict[str, Any], name: str) -> list[dict[str, Any]]:
        parts = owner.get(name)
        if parts is None:
            return []
        if not isinstance(parts, list):
            self.problems.add(f"{name}:not_an_array")
            return []
        return [part for part in parts if isinstance(part, dict)]


def _json_value(value: object) -> Any:
    if not isinstance(value, dict):
        return None
    kind, content = next(iter(value.items()), ("", None))
    if kind == "stringValue":
        return _clean(content)
    if kind == "intValue":
        return _integer(content)
    if kind == "arrayValue" and isinstance(content, dict):
        return [_json_value(part) for part in _parts(content)]
    if kind == "kvlistValue" and isinstance(content, dict):
        pairs = [pair for pair in _parts(content) if isinstance(pair, dict)]
        return {_clean(pair.get("key")): _json_value(pair.get("value")) for pair in pairs}
    return content if isinstance(content, (str, int, float, bool)) else None


def _parts(content: dict[str, Any]) -> list[Any]:
    values = content.get("values")
    return values if isinstance(values, list) else []


def _clean(text: object) -> str:
    return storable(text) if isinstance(text, str) else ""


def _id(value: object) -> str:
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return bytes(value).hex()
    return _clean(value)


def _integer(value: object) -> int | None:
    try:
        return int(value) if isinstance(value, (str, int, float)) else None
    except (ValueError, OverflowError):
        return None


def _nanoseconds(value: object) -> int:
    return min(max(_integer(value) or 0, 0), MAX_NANOSECONDS)


def _status_code(value: object) -> int:
    return {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}.get(str(value), _integer(value) or 0)

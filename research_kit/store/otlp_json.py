"""OTLP/JSON, whose ids are hexadecimal and whose 64-bit integers are decimal text.

Owns reading what may be any JSON at all. Invariant: nothing in the body makes it raise anything but
`ExportError`, or 413 for too much; whole numbers are of 64 bits, as in protobuf.
"""

from __future__ import annotations

import math
from typing import Any

from research_kit.store.jsontext import ODD_NUMBERS, compact, storable
from research_kit.store.spans import MAX_NANOSECONDS, Attributes, ExportError, Origin, Problems, Span
from research_kit.store.wire_size import MAX_FIELDS, MAX_SPANS, too_many
from research_kit.wire.parsing import JsonError, TooManyValuesError, parse_json

__all__ = ["decode_json"]

_INT64 = 2**63
_UNREADABLE = "Failed to parse OTel JSON Trace"


def decode_json(body: bytes) -> list[Span]:
    """Decode an export in OTLP/JSON; what is not an object is an export without spans.

    Raises:
        ExportError: When it is no JSON, or holds a span that cannot be stored.
        ApiError: 413 when it holds too many.
    """
    try:
        export = parse_json(body, max_values=MAX_FIELDS, keeps_odd_numbers=True)
    except TooManyValuesError as error:
        raise too_many() from error
    except JsonError as error:
        raise ExportError(_UNREADABLE) from error
    if export is None:
        raise ExportError(_UNREADABLE)
    problems = Problems()
    groups = export.get("resourceSpans") if isinstance(export, dict) else None
    spans = [
        span
        for group in (groups if isinstance(groups, list) else [])
        if group
        for span in _spans_of_resource(_object(group), problems)
    ]
    if problems.span_count > MAX_SPANS:
        raise too_many()
    problems.raise_if_any()
    return spans


def _spans_of_resource(group: dict[str, Any], problems: Problems) -> list[Span]:
    resource = _object(group.get("resource"))
    if _is_no_list(resource.get("attributes")):
        problems.see_bad_list("resource.attributes:not_an_array")
    if _is_no_list(group.get("scopeSpans")):
        problems.see_bad_list("scopeSpans:not_an_array")
    attributes = _attributes(resource)
    return [
        span
        for part in _list(group.get("scopeSpans"))
        for span in _spans_of_scope(_object(part), attributes, problems)
    ]


def _spans_of_scope(part: dict[str, Any], resource_attributes: Attributes, problems: Problems) -> list[Span]:
    scope = _object(part.get("scope"))
    origin = Origin(
        resource_attributes=resource_attributes,
        scope_name=_clean(scope.get("name")),
        scope_version=_clean(scope.get("version")),
        scope_attributes=_attributes(scope),
    )
    if _is_no_list(scope.get("attributes")):
        problems.see_bad_list("scope.attributes:not_an_array", origin.scope_name)
    if _is_no_list(part.get("spans")):
        problems.see_bad_list("spans:not_an_array", origin.scope_name)
    spans = []
    for given in map(_object, _list(part.get("spans"))):
        kinds = _faults(given)
        problems.see_span(origin.scope_name, kinds)
        if not kinds:
            spans.append(_span(given, origin))
    return spans


def _faults(span: dict[str, Any]) -> list[str]:
    faults = [(name, _id_fault(span.get(name))) for name in ("traceId", "spanId")]
    if span.get("parentSpanId"):
        faults.append(("parentSpanId", _id_fault(span["parentSpanId"])))
    kinds = [f"{name}:{fault}" for name, fault in faults if fault]
    events = span.get("events")
    kinds += [f"{name}:not_an_array" for name in ("attributes", "events") if _is_no_list(span.get(name))]
    if any(_is_no_list(_object(event).get("attributes")) for event in _list(events)):
        kinds.append("event.attributes:not_an_array")
    return kinds


def _id_fault(value: object) -> str | None:
    if value is None or value in ("", []):
        return "absent"
    return None if isinstance(value, str) or _bytes_of(value) is not None else "not_an_id"


def _span(given: dict[str, Any], origin: Origin) -> Span:
    status = _object(given.get("status"))
    return Span(
        origin=origin,
        trace_id=_id(given.get("traceId")),
        span_id=_id(given.get("spanId")),
        parent_id=_id(given.get("parentSpanId")) or None,
        name=_clean(given.get("name")),
        start_ns=_nanoseconds(given.get("startTimeUnixNano")),
        end_ns=_nanoseconds(given.get("endTimeUnixNano")),
        status_code=_status_code(status.get("code")),
        status_message=_clean(status.get("message")),
        attributes=_attributes(given),
        events=[
            (_clean(event.get("name")), _attributes(event))
            for event in map(_object, _list(given.get("events")))
        ],
    )


def _attributes(owner: dict[str, Any]) -> Attributes:
    pairs = [pair for pair in _list(owner.get("attributes")) if isinstance(pair, dict)]
    found = {_clean(pair.get("key")): _value(pair.get("value")) for pair in pairs}
    return {key: value for key, value in found.items() if value is not None}


def _value(value: object) -> Any:
    """Read a typed value; one of a type that attributes cannot have stays JSON, as text."""
    if not isinstance(value, dict) or not value:
        return None
    if "stringValue" in value:
        return _clean(value["stringValue"])
    if "doubleValue" in value:
        return _double(value["doubleValue"])
    if "boolValue" in value:
        return value["boolValue"] if isinstance(value["boolValue"], bool) else compact(value["boolValue"])
    if isinstance(value.get("arrayValue"), dict):
        return [_value(part) for part in _list(value["arrayValue"].get("values"))]
    number = _integer(value.get("intValue"))
    return compact(value) if number is None else number


def _double(value: object) -> Any:
    if not isinstance(value, (str, int, float)):
        return compact(value)
    try:
        number = float(value)
    except ValueError:
        return _clean(value)
    except OverflowError:
        number = math.inf if int(value) > 0 else -math.inf
    if math.isfinite(number):
        return number if isinstance(value, str) else value
    return value if isinstance(value, str) else ODD_NUMBERS[str(number)]


def _integer(value: object) -> int | None:
    """Read a 64-bit integer: decimal text, a number, or its two halves; None for anything else."""
    if isinstance(value, dict):
        value = _joined(value.get("high"), value.get("low"))
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if -_INT64 <= number < _INT64 else None


def _joined(high: object, low: object) -> int | None:
    is_number = all(isinstance(half, int) and not isinstance(half, bool) for half in (high, low))
    return (high << 32) + (low & 0xFFFFFFFF) if is_number else None  # type: ignore[operator]  # checked


def _nanoseconds(value: object) -> int | None:
    """Read a point in time; what is zero, missing or unreadable is None."""
    number = _integer(value)
    return None if number is None else min(max(number, 0), MAX_NANOSECONDS) or None


def _status_code(value: object) -> int:
    return {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}.get(str(value), _integer(value) or 0)


def _id(value: object) -> str:
    content = _bytes_of(value)
    return content.hex() if content is not None else _clean(value)


def _bytes_of(value: object) -> bytes | None:
    """Return the bytes of a list of numbers, also in the form in which Node.js writes its buffers."""
    if isinstance(value, dict) and value.get("type") == "Buffer":
        value = value.get("data")
    if not isinstance(value, list):
        return None
    return bytes(part & 0xFF if isinstance(part, int) else 0 for part in value)


def _is_no_list(value: object) -> bool:
    return value is not None and not isinstance(value, list)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _clean(text: object) -> str:
    return storable(text) if isinstance(text, str) else ""

"""Observations as a server answers them, turned back into the export that makes them.

Owns the inverse of what a server does to a span. Invariant: a server that takes the export answers the same
observation again, under the same ids and times; only the time of arrival differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

__all__ = ["export_of"]

# Observations of Langfuse's own SDK carry their fields in these attributes; others keep what they came with.
_LANGFUSE_SCOPE = "langfuse-sdk"
_TEXTS = {
    "statusMessage": "langfuse.observation.status_message",
    "level": "langfuse.observation.level",
    "model": "langfuse.observation.model.name",
    "promptName": "langfuse.observation.prompt.name",
    "environment": "langfuse.environment",
    "release": "langfuse.release",
    "version": "langfuse.version",
    "userId": "user.id",
    "sessionId": "session.id",
    "traceName": "langfuse.trace.name",
}
_JSON = {
    "modelParameters": "langfuse.observation.model.parameters",
    "usageDetails": "langfuse.observation.usage_details",
    "costDetails": "langfuse.observation.cost_details",
    "completionStartTime": "langfuse.observation.completion_start_time",
    "promptVersion": "langfuse.observation.prompt.version",
    "tags": "langfuse.trace.tags",
}
_CONTENT = {"input": "langfuse.observation.input", "output": "langfuse.observation.output"}
_RESOURCE, _SCOPE, _ATTRIBUTE = "resourceAttributes.", "scope.", "attributes."
_STATUS_ERROR = 2
# From this version on the SDK writes metadata as JSON, texts too; before, texts were written as they are.
_JSON_METADATA_SINCE = 5
# What other clients say in these is answered as it was written; elsewhere 1.50 is answered as a number.
_EXACT = {
    "session.id": "sessionId",
    "langfuse.session.id": "sessionId",
    "gen_ai.conversation.id": "sessionId",
    "user.id": "userId",
    "langfuse.user.id": "userId",
    "langfuse.trace.name": "traceName",
    "langfuse.release": "release",
    "langfuse.version": "version",
    "service.version": "version",
}


def export_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the OTLP/JSON export that makes ``rows``, observations with all groups of fields."""
    spans_by_origin: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        metadata = {key: _stored_text(value) for key, value in row["metadata"].items()}
        origin = json.dumps(
            {key: text for key, text in metadata.items() if key.startswith((_RESOURCE, _SCOPE))}
        )
        spans_by_origin.setdefault(origin, []).append(_span(row, metadata))
    return {
        "resourceSpans": [_origin(json.loads(origin), spans) for origin, spans in spans_by_origin.items()]
    }


def _origin(texts: Mapping[str, str], spans: list[dict[str, Any]]) -> dict[str, Any]:
    own = f"{_SCOPE}attributes."
    scope = {
        "name": texts.get(f"{_SCOPE}name", ""),
        "version": texts.get(f"{_SCOPE}version", ""),
        "attributes": _attributes(
            {key[len(own) :]: text for key, text in texts.items() if key.startswith(own)}
        ),
    }
    resource = {key[len(_RESOURCE) :]: text for key, text in texts.items() if key.startswith(_RESOURCE)}
    return {
        "resource": {"attributes": _attributes(resource)},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }


def _span(row: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    is_langfuse = metadata.get(f"{_SCOPE}name", _LANGFUSE_SCOPE).startswith(_LANGFUSE_SCOPE)
    attributes = _fields(row, metadata) if is_langfuse else _originals(row) | _own_metadata(metadata)
    attributes |= {name: row[field] for field, name in _CONTENT.items() if row.get(field)}
    is_error = row["level"] == "ERROR"
    span = {
        "traceId": row["traceId"],
        "spanId": row["id"],
        "name": row["name"],
        "startTimeUnixNano": _nanoseconds(row["startTime"]),
        "endTimeUnixNano": _nanoseconds(row["endTime"] or row["startTime"]),
        "status": {"code": _STATUS_ERROR if is_error else 0, "message": row.get("statusMessage") or ""},
        "attributes": _attributes(attributes),
    }
    return {**span, "parentSpanId": row["parentObservationId"]} if row.get("parentObservationId") else span


def _fields(row: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, str]:
    found = {"langfuse.observation.type": row["type"].lower()}
    found |= {name: row[field] for field, name in _TEXTS.items() if row.get(field)}
    found |= {
        name: json.dumps(row[field]) for field, name in _JSON.items() if row.get(field) not in (None, {}, [])
    }
    if row.get("isRootObservation") and row.get("parentObservationId"):
        found["langfuse.internal.is_app_root"] = "true"
    if row.get("public"):
        found["langfuse.trace.public"] = "true"
    is_json = _major(metadata.get(f"{_SCOPE}version", "")) >= _JSON_METADATA_SINCE
    own = {
        key: json.dumps(value, ensure_ascii=False) if is_json else metadata[key]
        for key, value in row["metadata"].items()
        if not key.startswith((_RESOURCE, _SCOPE))
    }
    return found | {f"langfuse.observation.metadata.{key}": text for key, text in own.items()}


def _own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what clients of other kinds said in attributes that a server does not repeat as such."""
    return {
        f"langfuse.observation.metadata.{key}": text
        for key, text in metadata.items()
        if not key.startswith((_RESOURCE, _SCOPE, _ATTRIBUTE))
    }


def _originals(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        key.removeprefix(_ATTRIBUTE): _stored_text(value) if isinstance(value, str) else value
        for key, value in row["metadata"].items()
        if key.startswith(_ATTRIBUTE)
    }
    return found | {key: _exact_text(key, found[key], row) for key in found.keys() & _EXACT}


def _exact_text(key: str, value: Any, row: Mapping[str, Any]) -> Any:
    """Return the text that a field of ``row`` was made of, when it is the same value."""
    text = row.get(_EXACT[key]) or ""
    try:
        return text if json.loads(text) == value else value
    except ValueError:
        return value


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isascii() and first.isdecimal() else 0


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _typed(value)} for key, value in values.items()]


def _typed(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_typed(part) for part in value]}}
        case str():
            return {"stringValue": value}
        case _:
            return {"stringValue": _stored_text(value)}


def _stored_text(value: Any) -> str:
    """Return the text that reads as ``value``: metadata are answered parsed where they are JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)


def _nanoseconds(moment: str) -> str:
    parsed = datetime.fromisoformat(moment)
    # Whole milliseconds, as the server has them: a float would move some of them.
    return str(
        (int(parsed.replace(microsecond=0).timestamp()) * 1000 + parsed.microsecond // 1000) * 1_000_000
    )

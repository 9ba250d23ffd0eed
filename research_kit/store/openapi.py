"""The store's API in the words of OpenAPI.

Owns the description; what the endpoints do is in `api`. Invariant: it names every endpoint that stores or
answers something, so that a fuzzer which reads it reaches all of them.
"""

from __future__ import annotations

from typing import Any

from research_kit.store.metrics_schema import VIEWS
from research_kit.store.observation_fields import GROUPS
from research_kit.store.observation_row import LEVELS, OBSERVATION_TYPES

__all__ = ["describe_api"]

_TEXT: dict[str, Any] = {"type": "string"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_JSON = "application/json"
_REFUSALS = {
    "400": {"description": "The request is refused"},
    "401": {"description": "The keys are missing or wrong"},
    "403": {"description": "The request comes from elsewhere"},
}


def describe_api(version: str) -> dict[str, Any]:
    """Return the OpenAPI description of the endpoints below ``/api/public``."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "research-kit store", "version": version},
        "security": [{"keys": []}],
        "paths": {path: {method: _operation(**parts)} for path, (method, parts) in _endpoints().items()},
        "components": {"securitySchemes": {"keys": {"type": "http", "scheme": "basic"}}},
    }


def _endpoints() -> dict[str, tuple[str, dict[str, Any]]]:
    identity = {"path": {"identity": _TEXT}}
    return {
        "/api/public/otel/v1/traces": ("post", {"body": _EXPORT, "media_type": _JSON}),
        "/api/public/v2/observations": ("get", {"query": _OBSERVATION_PARAMETERS}),
        "/api/public/v2/metrics": ("get", {"query": {"query": _METRICS_QUERY}, "is_json": True}),
        "/api/public/v3/scores": ("get", {"query": _SCORE_PARAMETERS}),
        "/api/public/scores": ("post", {"body": _SCORE, "media_type": _JSON}),
        "/api/public/scores/{identity}": ("delete", identity),
        "/api/public/ingestion": ("post", {"body": _BATCH, "media_type": _JSON}),
        "/api/public/traces": ("delete", {"body": _TRACE_IDS, "media_type": _JSON}),
        "/api/public/traces/{identity}": ("delete", identity),
        "/api/public/projects": ("get", {}),
        "/api/public/models": ("get", {"query": {"page": {"type": "integer"}, "limit": {"type": "integer"}}}),
        "/api/public/models/{identity}": ("get", identity),
        "/api/public/health": ("get", {}),
        "/api/public/ready": ("get", {}),
    }


def _operation(
    *,
    query: dict[str, Any] | None = None,
    path: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    media_type: str = "",
    is_json: bool = False,
) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "query",
            **({"content": {_JSON: {"schema": schema}}} if is_json else {"schema": schema}),
        }
        for name, schema in (query or {}).items()
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in (path or {}).items()
    ]
    operation: dict[str, Any] = {
        "parameters": parameters,
        "responses": {"default": {"description": "The answer"}, **_REFUSALS},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {media_type: {"schema": body}}}
    return operation


def _object(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


_FILTER = _object(
    "column",
    "operator",
    "type",
    column=_TEXT,
    operator=_TEXT,
    type=_one_of(
        "string", "number", "datetime", "stringOptions", "arrayOptions", "boolean", "null", "stringObject"
    ),
    key=_TEXT,
    value={},
)
_OBSERVATION_PARAMETERS = {
    "fields": _one_of(*GROUPS, ",".join(GROUPS)),
    "limit": {"type": "integer"},
    "cursor": _TEXT,
    "sessionId": _TEXT,
    "traceId": _TEXT,
    "name": _TEXT,
    "userId": _TEXT,
    "version": _TEXT,
    "environment": _TEXT,
    "parentObservationId": _TEXT,
    "type": _one_of(*OBSERVATION_TYPES),
    "level": _one_of(*LEVELS),
    "isRootObservation": {"type": "boolean"},
    "fromStartTime": _TIME,
    "toStartTime": _TIME,
    "expandMetadata": _TEXT,
    "filter": _TEXT,
}
_SCORE_PARAMETERS = {
    "fields": _one_of("core", "details", "subject", "annotation", "details,subject,annotation"),
    "limit": {"type": "integer"},
    "cursor": _TEXT,
    "name": _TEXT,
    "dataType": _one_of("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"),
    "traceId": _TEXT,
    "sessionId": _TEXT,
    "observationId": _TEXT,
    "environment": _TEXT,
    "fromTimestamp": _TIME,
    "toTimestamp": _TIME,
}
_METRICS_QUERY = _object(
    "view",
    "metrics",
    "fromTimestamp",
    "toTimestamp",
    view=_one_of(*VIEWS),
    metrics=_list_of(
        _object(
            "measure",
            "aggregation",
            measure=_one_of(*VIEWS["observations"].measures, "value"),
            aggregation=_one_of("sum", "avg", "count", "max", "min", "p50", "p95", "histogram", "uniq"),
        )
    ),
    dimensions=_list_of(_object("field", field=_one_of(*VIEWS["observations"].dimensions))),
    filters=_list_of(_FILTER),
    timeDimension=_object(
        "granularity", granularity=_one_of("auto", "minute", "hour", "day", "week", "month")
    ),
    orderBy=_list_of(_object("field", "direction", field=_TEXT, direction=_one_of("asc", "desc"))),
    fromTimestamp=_TIME,
    toTimestamp=_TIME,
    config=_object(row_limit={"type": "integer"}, bins={"type": "integer"}),
)
_SCORE = _object(
    "name",
    "value",
    id=_TEXT,
    name=_TEXT,
    value={"anyOf": [{"type": "number"}, _TEXT]},
    dataType=_one_of("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"),
    traceId=_TEXT,
    observationId=_TEXT,
    sessionId=_TEXT,
    environment=_TEXT,
    comment=_TEXT,
    metadata={},
)
_BATCH = _object(
    "batch",
    batch=_list_of(
        _object("id", "type", "timestamp", "body", id=_TEXT, type=_TEXT, timestamp=_TIME, body=_SCORE)
    ),
)
_TRACE_IDS = _object("traceIds", traceIds=_list_of(_TEXT))
_ATTRIBUTES = _list_of(
    _object(
        "key",
        "value",
        key=_one_of(
            "langfuse.observation.type",
            "langfuse.observation.input",
            "langfuse.observation.usage_details",
            "langfuse.observation.cost_details",
            "langfuse.observation.metadata",
            "langfuse.observation.completion_start_time",
            "langfuse.trace.tags",
            "gen_ai.usage.input_tokens",
            "gen_ai.prompt.0.content",
            "llm.input_messages.0.message.content",
            "openinference.span.kind",
            "session.id",
            "model",
        ),
        value=_object(
            stringValue=_TEXT,
            intValue={"anyOf": [{"type": "integer"}, _TEXT]},
            doubleValue={"type": "number"},
            boolValue={"type": "boolean"},
            arrayValue=_object(values=_list_of(_object(stringValue=_TEXT))),
        ),
    )
)
_SPAN = _object(
    "traceId",
    "spanId",
    traceId=_TEXT,
    spanId=_TEXT,
    parentSpanId=_TEXT,
    name=_TEXT,
    startTimeUnixNano={"anyOf": [_TEXT, {"type": "integer"}]},
    endTimeUnixNano={"anyOf": [_TEXT, {"type": "integer"}]},
    attributes=_ATTRIBUTES,
    events=_list_of(_object(name=_TEXT, attributes=_ATTRIBUTES)),
    status=_object(code={"type": "integer"}, message=_TEXT),
)
_EXPORT = _object(
    "resourceSpans",
    resourceSpans=_list_of(
        _object(
            resource=_object(attributes=_ATTRIBUTES),
            scopeSpans=_list_of(_object(scope=_object(name=_TEXT, version=_TEXT), spans=_list_of(_SPAN))),
        )
    ),
)

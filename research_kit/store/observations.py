"""``GET /api/public/v2/observations``: parameters in, rows out.

Owns the parameters, the groups of fields and the order; filters are in `filters`. Invariant: rows are
assembled by SQLite itself from columns that hold what the answer needs, so a page of a thousand rows costs
no Python object per field.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams

from research_kit.store.answers import ApiError, bad_request, invalid_data, issue
from research_kit.store.filters import Condition, parse_filter
from research_kit.store.jsontext import storable
from research_kit.store.observation_fields import GROUPS, row_sql
from research_kit.store.observation_row import LEVELS, OBSERVATION_TYPES
from research_kit.store.times import is_full_iso, iso_to_ms, ms_to_iso
from research_kit.store.xxhash32 import xxhash32

__all__ = ["ObservationQuery", "parse_query", "read_page"]

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
_DEFAULT_GROUPS = frozenset({"core", "basic"})


# Query parameter -> column, compared for equality.
_EQUAL = {
    "sessionId": "session_id",
    "traceId": "trace_id",
    "name": "name",
    "userId": "user_id",
    "version": "version",
    "type": "type",
    "level": "level",
}
_ENUMS: dict[str, tuple[str, ...]] = {
    "type": OBSERVATION_TYPES,
    "level": LEVELS,
    "isRootObservation": ("true", "false"),
}
_PARSE_IO = (
    "parseIoAsJson=true is no longer supported on the v2 observations endpoint. Input/output fields are "
    "always returned as raw strings. Remove the parseIoAsJson parameter or set it to false."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationQuery:
    """One validated request for a page.

    Attributes:
        groups: The groups of fields to answer.
        has_full_metadata: Whether long metadata values are answered whole.
        limit: Rows per page; 0 asks for none.
        conditions: All of them must hold.
    """

    groups: frozenset[str]
    has_full_metadata: bool
    limit: int
    conditions: tuple[Condition, ...]


class _Cursor(NamedTuple):
    """The place after the last row of a page."""

    start_ms: int
    trace_id: str
    span_id: str


def parse_query(params: QueryParams) -> ObservationQuery:
    """Read the query parameters.

    Raises:
        ApiError: 400 when a parameter has a value that cannot be used.
    """
    if params.get("parseIoAsJson") == "true":
        raise invalid_data(issue(["parseIoAsJson"], _PARSE_IO))
    filtered = parse_filter(params.get("filter"))
    columns = {condition.column for condition in filtered}
    conditions = [condition for condition in _parameter_conditions(params) if condition.column not in columns]
    cursor = _parse_cursor(params.get("cursor"))
    if cursor is not None:
        conditions.append(_after(cursor))
    groups = _parse_groups(params.get("fields"))
    return ObservationQuery(
        groups=groups,
        has_full_metadata="io" in groups or bool(params.get("expandMetadata")),
        limit=_parse_limit(params.get("limit")),
        conditions=(*conditions, *filtered),
    )


def read_page(connection: sqlite3.Connection, query: ObservationQuery, *, project_id: str) -> str:
    """Return the body of the answer: one page of rows, newest first."""
    if query.limit == 0:
        return '{"data":[],"meta":{}}'
    where = " AND ".join(f"({condition.sql})" for condition in query.conditions) or "true"
    row = row_sql(query.groups, has_full_metadata=query.has_full_metadata)
    sql = (
        f"SELECT {row}, start_ms, trace_id, span_id FROM observations WHERE {where} "
        "ORDER BY start_ms DESC, trace_hash DESC, span_id DESC LIMIT ?"
    )
    # The order of the question marks in the text: project, conditions, limit.
    bound = [value for condition in query.conditions for value in condition.values]
    rows = connection.execute(sql, (project_id, *bound, query.limit + 1)).fetchall()
    page = rows[: query.limit]
    meta = {"cursor": _encode_cursor(_Cursor(*page[-1][1:]))} if len(rows) > query.limit else {}
    return '{"data":[' + ",".join(row[0] for row in page) + f'],"meta":{json.dumps(meta)}}}'


def _parse_groups(text: str | None) -> frozenset[str]:
    if not text:
        return _DEFAULT_GROUPS
    return frozenset(part.strip() for part in text.split(",")) & GROUPS.keys()


def _parse_limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    try:
        limit = int(text or "0")
    except ValueError:
        message = f"Invalid input: expected a whole number, received {text!r}"
        raise invalid_data(issue(["limit"], message, code="invalid_type")) from None
    if not 0 <= limit <= _MAX_LIMIT:
        bound = ">=0" if limit < 0 else f"<={_MAX_LIMIT}"
        raise invalid_data(issue(["limit"], f"Expected number to be {bound}", code="out_of_range"))
    return limit


def _parameter_conditions(params: QueryParams) -> list[Condition]:
    for name, allowed in _ENUMS.items():
        if name in params and params[name] not in allowed:
            options = "|".join(json.dumps(option) for option in allowed)
            raise invalid_data(
                issue([name], f"Invalid option: expected one of {options}", code="invalid_value")
            )
    conditions = [
        Condition(column=name, sql=f"{column} = ?", values=(params[name],))
        for name, column in _EQUAL.items()
        if name in params
    ]
    if "isRootObservation" in params:
        is_root = params["isRootObservation"] == "true"
        conditions.append(Condition(column="isRootObservation", sql="is_root = ?", values=(is_root,)))
    if "parentObservationId" in params:
        parent_id = params["parentObservationId"] or None
        conditions.append(Condition(column="parentObservationId", sql="parent_id IS ?", values=(parent_id,)))
    environments = [name for name in params.getlist("environment") if name]
    if environments:
        sql = "environment IN (SELECT value FROM json_each(?))"
        conditions.append(Condition(column="environment", sql=sql, values=(json.dumps(environments),)))
    for name, operator in (("fromStartTime", ">="), ("toStartTime", "<")):
        if params.get(name):
            conditions.append(_time_condition(name, operator, params[name]))
    return conditions


def _time_condition(name: str, operator: str, text: str) -> Condition:
    if not is_full_iso(text):
        raise invalid_data(issue([name], "Invalid ISO datetime", code="invalid_format"))
    return Condition(column="startTime", sql=f"start_ms {operator} ?", values=(iso_to_ms(text),))


def _after(cursor: _Cursor) -> Condition:
    return Condition(
        column="cursor",
        sql="(start_ms, trace_hash, span_id) < (?, ?, ?)",
        values=(cursor.start_ms, xxhash32(cursor.trace_id.encode()), cursor.span_id),
    )


def _encode_cursor(cursor: _Cursor) -> str:
    content = {
        "lastStartTimeTo": ms_to_iso(cursor.start_ms),
        "lastTraceId": cursor.trace_id,
        "lastId": cursor.span_id,
    }
    return base64.b64encode(json.dumps(content).encode()).decode()


def _parse_cursor(text: str | None) -> _Cursor | None:
    if text is None:
        return None
    content = _cursor_content(text)
    start, trace_id, span_id = (content.get(key) for key in ("lastStartTimeTo", "lastTraceId", "lastId"))
    if not isinstance(start, str) or not is_full_iso(start):
        raise invalid_data(
            issue(["cursor", "lastStartTimeTo"], "Invalid input: expected date", code="invalid_type")
        )
    if not isinstance(trace_id, str) or not isinstance(span_id, str):
        raise invalid_data(issue(["cursor"], "Invalid input: expected ids", code="invalid_type"))
    return _Cursor(iso_to_ms(start), storable(trace_id), storable(span_id))


def _cursor_content(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid_cursor() from None
    if not isinstance(content, dict):
        raise _invalid_cursor()
    return content


def _invalid_cursor() -> ApiError:
    return bad_request("Invalid cursor format")

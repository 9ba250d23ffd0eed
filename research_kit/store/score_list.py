"""``GET /api/public/v3/scores``: parameters in, scores out.

Owns the parameters and the shape of a score in answers. Invariant: an unknown parameter refuses the
request.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from research_kit.store.answers import bad_request, invalid_data, issue
from research_kit.store.jsontext import storable
from research_kit.store.times import is_full_iso, iso_to_ms, ms_to_iso

__all__ = ["ScoreQuery", "parse_score_query", "read_scores"]

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 100
_DATA_TYPES = ("NUMERIC", "CATEGORICAL", "BOOLEAN", "CORRECTION", "TEXT")
_FILTERABLE_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL")
_GROUPS = ("core", "details", "subject", "annotation")

# Parameter with a comma-separated list -> column.
_LISTS = {
    "id": "score_id",
    "name": "name",
    "dataType": "data_type",
    "source": "source",
    "environment": "environment",
    "queueId": "queue_id",
    "observationId": "observation_id",
}
_TARGETS = {"traceId": ("trace", "observation"), "sessionId": ("session",), "experimentId": ("experiment",)}
_NEEDS_JOIN = ("userId", "traceTags")
_OTHERS = (
    "fields",
    "limit",
    "cursor",
    "value",
    "valueMin",
    "valueMax",
    "fromTimestamp",
    "toTimestamp",
    "configId",
)
_KNOWN = frozenset({*_LISTS, *_TARGETS, *_OTHERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreQuery:
    """One validated request for a page of scores.

    Attributes:
        groups: The groups of fields to answer.
        limit: Scores per page.
        conditions: SQL with its values; all of them must hold.
    """

    groups: frozenset[str]
    limit: int
    conditions: tuple[tuple[str, tuple[Any, ...]], ...]


def parse_score_query(params: QueryParams) -> ScoreQuery:
    """Read the query parameters.

    Raises:
        ApiError: 400 when a parameter is unknown or has a value that cannot be used.
    """
    _check_names(params)
    data_types = [name.upper() for name in _split(params, "dataType")]
    for name in data_types:
        if name not in _DATA_TYPES:
            problem = f'Invalid dataType value: "{name}". Allowed: {", ".join(_DATA_TYPES)}'
            raise invalid_data(issue(["dataType"], problem))
    conditions = [
        *_list_conditions(params),
        *_target_conditions(params),
        *_value_conditions(params, data_types),
        *_time_conditions(params),
        *_cursor_conditions(params.get("cursor")),
    ]
    return ScoreQuery(
        groups=_parse_groups(params), limit=_parse_limit(params.get("limit")), conditions=tuple(conditions)
    )


def read_scores(connection: sqlite3.Connection, query: ScoreQuery, *, project_id: str) -> dict[str, Any]:
    """Return the answer: one page of scores, newest first."""
    where = " AND ".join(f"({sql})" for sql, _ in query.conditions) or "true"
    values = [value for _, bound in query.conditions for value in bound]
    cursor = connection.execute(
        f"SELECT * FROM scores WHERE {where} ORDER BY timestamp_ms DESC, score_id DESC LIMIT ?",
        (*values, query.limit + 1),
    )
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    page = rows[: query.limit]
    meta: dict[str, Any] = {"limit": query.limit}
    if len(rows) > query.limit:
        meta["cursor"] = _encode_cursor(page[-1])
    return {"data": [_score(row, query.groups, project_id) for row in page], "meta": meta}


def _score(row: Mapping[str, Any], groups: frozenset[str], project_id: str) -> dict[str, Any]:
    score: dict[str, Any] = {
        "id": row["score_id"],
        "projectId": project_id,
        "name": row["name"],
        "source": row["source"],
        "timestamp": ms_to_iso(row["timestamp_ms"]),
        "environment": row["environment"],
        "createdAt": ms_to_iso(row["created_ms"]),
        "updatedAt": ms_to_iso(row["updated_ms"]),
        "dataType": row["data_type"],
        "value": _value(row),
    }
    if "details" in groups:
        score |= {"comment": row["comment"], "configId": None, "metadata": json.loads(row["metadata"])}
    if "annotation" in groups:
        score |= {"authorUserId": None, "queueId": row["queue_id"]}
    if "subject" in groups:
        score["subject"] = _subject(row)
    return score


def _value(row: Mapping[str, Any]) -> float | bool | str:
    if row["data_type"] == "BOOLEAN":
        return bool(row["numeric_value"])
    value: float | str = row["text_value"] if row["numeric_value"] is None else row["numeric_value"]
    return value


def _subject(row: Mapping[str, Any]) -> dict[str, str]:
    if row["subject"] == "observation":
        return {"kind": "observation", "id": row["observation_id"], "traceId": row["subject_id"]}
    return {"kind": row["subject"], "id": row["subject_id"]}


def _check_names(params: QueryParams) -> None:
    for name in params:
        if name in _NEEDS_JOIN:
            problem = (
                f"{name} filter requires a trace JOIN and is not supported in v3 — use v2 or omit this filter"
            )
            raise invalid_data(issue([], problem))
        if name not in _KNOWN:
            raise invalid_data(issue([], f'Unrecognized key: "{name}"', code="unrecognized_keys"))


def _split(params: QueryParams, name: str) -> list[str]:
    return [part.strip() for part in params.get(name, "").split(",") if part.strip()]


def _parse_groups(params: QueryParams) -> frozenset[str]:
    groups = _split(params, "fields")
    for position, name in enumerate(groups):
        if name not in _GROUPS:
            options = "|".join(json.dumps(group) for group in _GROUPS)
            problem = f"Invalid option: expected one of {options}"
            raise invalid_data(issue(["fields", position], problem, code="invalid_value"))
    return frozenset(groups)


def _parse_limit(text: str | None) -> int:
    limit = _number("limit", text) if text else _DEFAULT_LIMIT
    if limit != int(limit) or not 1 <= limit <= _MAX_LIMIT:
        raise invalid_data(
            issue(["limit"], f"Expected number to be >=1 and <={_MAX_LIMIT}", code="out_of_range")
        )
    return int(limit)


def _list_conditions(params: QueryParams) -> list[tuple[str, tuple[Any, ...]]]:
    conditions: list[tuple[str, tuple[Any, ...]]] = []
    for name, column in _LISTS.items():
        wanted = _split(params, name)
        if name in ("dataType", "source"):
            wanted = [value.upper() for value in wanted]
        if wanted:
            conditions.append((f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(wanted),)))
    if params.get("configId") or params.get("authorUserId"):
        # Scores with a configuration are not kept, and none has an author.
        conditions.append(("false", ()))
    return conditions


def _target_conditions(params: QueryParams) -> list[tuple[str, tuple[Any, ...]]]:
    given = [name for name in _TARGETS if params.get(name)]
    if len(given) > 1:
        raise invalid_data(issue([], "At most one of traceId, sessionId, experimentId may be specified"))
    if params.get("observationId") and "traceId" not in given:
        problem = "observationId filter requires traceId — observation IDs are scoped to a trace"
        raise invalid_data(issue([], problem))
    sql = "subject IN (SELECT value FROM json_each(?)) AND subject_id IN (SELECT value FROM json_each(?))"
    return [(sql, (json.dumps(_TARGETS[name]), json.dumps(_split(params, name)))) for name in given]


def _value_conditions(params: QueryParams, data_types: list[str]) -> list[tuple[str, tuple[Any, ...]]]:
    conditions: list[tuple[str, tuple[Any, ...]]] = []
    for name, operator in (("valueMin", ">="), ("valueMax", "<=")):
        if params.get(name):
            if data_types != ["NUMERIC"]:
                raise invalid_data(
                    issue([], "valueMin and valueMax require dataType=NUMERIC as a single value")
                )
            conditions.append((f"numeric_value {operator} ?", (_number(name, params[name]),)))
    wanted = _split(params, "value")
    if wanted:
        if len(data_types) != 1 or data_types[0] not in _FILTERABLE_TYPES:
            options = ", ".join(_FILTERABLE_TYPES)
            raise invalid_data(issue([], f"value filter requires a single dataType from: {options}"))
        column = "text_value" if data_types[0] == "CATEGORICAL" else "numeric_value"
        values = [_READERS[data_types[0]](value) for value in wanted]
        conditions.append((f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(values),)))
    return conditions


def _boolean(text: str) -> float:
    if text not in ("true", "false"):
        problem = (
            f'value filter with dataType=BOOLEAN requires each value to be "true" or "false" (got "{text}")'
        )
        raise invalid_data(issue([], problem))
    return float(text == "true")


_READERS: Mapping[str, Callable[[str], float | str]] = {
    "NUMERIC": lambda text: _number("value", text),
    "BOOLEAN": _boolean,
    "CATEGORICAL": str,
}


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise invalid_data(
            issue([name], f"Invalid input: expected number, received {text!r}", code="invalid_type")
        )
    return number


def _time_conditions(params: QueryParams) -> list[tuple[str, tuple[Any, ...]]]:
    conditions: list[tuple[str, tuple[Any, ...]]] = []
    for name, operator in (("fromTimestamp", ">="), ("toTimestamp", "<")):
        if params.get(name):
            if not is_full_iso(params[name]):
                raise invalid_data(issue([name], "Invalid ISO datetime", code="invalid_format"))
            conditions.append((f"timestamp_ms {operator} ?", (iso_to_ms(params[name]),)))
    return conditions


def _encode_cursor(row: Mapping[str, Any]) -> str:
    content = {"v": 1, "lastTimestamp": ms_to_iso(row["timestamp_ms"]), "lastId": row["score_id"]}
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def _cursor_conditions(text: str | None) -> list[tuple[str, tuple[Any, ...]]]:
    if text is None:
        return []
    try:
        content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise bad_request("Invalid cursor format") from None
    if not isinstance(content, dict):
        raise bad_request("Invalid cursor format")
    timestamp, score_id = content.get("lastTimestamp"), content.get("lastId")
    if content.get("v") != 1 or not isinstance(score_id, str) or not is_full_iso(str(timestamp)):
        raise invalid_data(issue(["cursor", "v"], "Invalid input", code="invalid_union"))
    return [("(timestamp_ms, score_id) < (?, ?)", (iso_to_ms(str(timestamp)), storable(score_id)))]

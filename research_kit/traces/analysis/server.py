"""The same questions, answered by the server's metrics API.

Owns the translation into metrics queries and back; the requests are the reader's. Invariant: what the server
cannot tell is missing or refused, never guessed; a list that the server cut short is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from research_kit._notices import warn_user
from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import COSTS, LATENCIES
from research_kit.traces.analysis.grouping import key_names
from research_kit.traces.defaults import bound_session, is_bound, open_reader
from research_kit.traces.gathering import ALL_SESSIONS
from research_kit.traces.observation_read import check_session
from research_kit.traces.query import ObservationQuery, to_utc
from research_kit.traces.reader import TraceReader

__all__ = ["cost_on_server", "latency_on_server"]

_DIMENSIONS = {
    "model": "providedModelName",
    "user": "userId",
    "session": "sessionId",
    "trace": "traceId",
    "name": "name",
    "type": "type",
    "environment": "environment",
    "tag": "tags",
}
_DAY = "time_dimension"
_MANY_VALUED = ("user", "session", "trace")
_CALL_TYPES = ("GENERATION", "EMBEDDING")
_MOST_GROUPS = 1_000
_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)  # before Langfuse
_MS = timedelta(milliseconds=1)
_LATENCIES = {
    "count_latency": "count",
    "avg_latency": "latency_mean_s",
    **{f"p{n}_latency": f"latency_p{n}_s" for n in (50, 90, 95, 99)},
    "p50_timeToFirstToken": "time_to_first_token_p50_s",
    "p95_timeToFirstToken": "time_to_first_token_p95_s",
}
_COSTS = ("sum_totalCost", "sum_inputTokens", "sum_outputTokens", "count_count")

_Groups = dict[tuple[Any, ...], dict[str, Any]]
_Known = dict[tuple[Any, ...], dict[str, int]]


def cost_on_server(keys: Sequence[str], where: Mapping[str, Any]) -> pd.DataFrame:
    """Return costs, tokens and calls per group, as the metrics API adds them up.

    Sums are 0 also for what the server does not know. So it is asked as well how many calls have which parts
    of costs and usage: a group in which no call has a cost has none.

    Raises:
        ConfigError: When the server knows no such group, or a time cannot be used.
        BackendError: When the server cannot be read.
    """
    _check(keys, _DIMENSIONS.keys() | {"day"}, "cost_by")
    query = _query(keys, _COSTS, where, types=(where.get("type"),) if where.get("type") else _CALL_TYPES)
    with open_reader(where.get("reader")) as source:
        rows = _ask(source, query, where)
        priced = _known_counts(source, query, keys, "cost")
        used = _known_counts(source, query, keys, "usage")
    found = [_cost_row(row, _key(row, keys), priced, used) for row in rows]
    if "tag" in keys:
        found = _by_tag(found, keys)
    return _frame(found, keys, [column.name for column in COSTS])


def latency_on_server(keys: Sequence[str], where: Mapping[str, Any]) -> pd.DataFrame:
    """Return percentiles per group, as the metrics API computes them; the errors are those of costs.

    The server's own tokens per second count whole seconds only, so that column is missing.
    """
    _check(keys, (_DIMENSIONS.keys() | {"day"}) - {"tag"}, "latency_summary")
    query = _query(keys, _LATENCIES, where, types=(where.get("type"),) if where.get("type") else ())
    with open_reader(where.get("reader")) as source:
        rows = _ask(source, query, where)
    found = [_latency_row(row, keys) for row in rows if row["count_latency"]]
    frame = _frame(found, keys, [column.name for column in LATENCIES])
    return frame.sort_values(key_names(keys), kind="stable") if keys else frame


def _check(keys: Sequence[str], known: Any, purpose: str) -> None:
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ConfigError(
            f"The server cannot group {purpose} by {unknown[0]!r}, only by {', '.join(sorted(known))}. "
            f"Read the observations and group them here: {purpose}(observations_df(...), {unknown[0]!r})."
        )
    many = [key for key in keys if key in _MANY_VALUED]
    if many and "day" in keys:
        raise ConfigError(
            f"The server cannot group by day and {many[0]} at once. Leave one out, or read the observations "
            f"and group them here: {purpose}(observations_df(...), ...)."
        )


def _query(
    keys: Sequence[str], metrics: Iterable[str], where: Mapping[str, Any], *, types: Sequence[str | None]
) -> dict[str, Any]:
    session_id = where.get("session_id") or bound_session()
    # Checks the order of the times, as every read does.
    bounds = ObservationQuery(
        start_time=to_utc(where.get("start_time"), name="start_time"),
        end_time=to_utc(where.get("end_time"), name="end_time"),
    )
    begin = bounds.start_time or _BEGIN
    # The API's end is within the range, that of every frame is not.
    end = datetime.now(UTC) if bounds.end_time is None else bounds.end_time - _MS
    filters: list[dict[str, Any]] = []
    if session_id != ALL_SESSIONS:
        filters.append({"type": "string", "column": "sessionId", "operator": "=", "value": session_id})
    if types:
        filters.append(
            {"type": "stringOptions", "column": "type", "operator": "any of", "value": list(types)}
        )
    return {
        "view": "observations",
        "dimensions": [{"field": _DIMENSIONS[key]} for key in keys if key != "day"],
        "filters": filters,
        "fromTimestamp": _wire(min(begin, end - _MS)),
        "toTimestamp": _wire(end),
        "config": {"row_limit": _MOST_GROUPS},
        **({"timeDimension": {"granularity": "day"}} if "day" in keys else {}),
        **_metrics(metrics),
    }


def _metrics(names: Iterable[str]) -> dict[str, Any]:
    """Return the metrics of a query; ordering by the first makes the server cut the smallest groups off."""
    listed = list(names)
    split = [name.split("_", 1) for name in listed]
    return {
        "metrics": [{"measure": measure, "aggregation": aggregation} for aggregation, measure in split],
        "orderBy": [{"field": listed[0], "direction": "desc"}],
    }


def _ask(source: TraceReader, query: Mapping[str, Any], where: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = source.read_metrics(query)
    if not any(row.get("count_count") or row.get("count_latency") for row in rows):
        _check_session(source, where.get("session_id"))
    if len(rows) >= _MOST_GROUPS:
        warn_user(
            f"{source.base_url} gives at most {_MOST_GROUPS:,} groups, and there may be more. Narrow the "
            "question with session_id, start_time or end_time, or group by less."
        )
    return rows


def _check_session(source: TraceReader, session_id: str | None) -> None:
    """Refuse a session that does not exist; one without what was asked for is fine."""
    if session_id not in (None, ALL_SESSIONS) and not is_bound(str(session_id)):
        check_session(source, str(session_id))


def _key(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    values = [row.get(_DAY if key == "day" else _DIMENSIONS[key]) for key in keys]
    return tuple(tuple(value) if isinstance(value, list) else value or None for value in values)


def _known_counts(
    source: TraceReader, query: Mapping[str, Any], keys: Sequence[str], kind: str
) -> _Known | None:
    """Return in how many calls of each group each part of costs or usage is known; None when cut short."""
    dimension, metric = f"{kind}Type", f"count_{kind}ByType"
    parts = {**query, **_metrics([metric]), "dimensions": [*query["dimensions"], {"field": dimension}]}
    rows = source.read_metrics(parts)
    if len(rows) >= _MOST_GROUPS:
        return None
    found: _Known = {}
    for row in rows:
        found.setdefault(_key(row, keys), {})[row[dimension]] = int(row[metric])
    return found


def _cost_row(
    row: Mapping[str, Any], key: tuple[Any, ...], priced: _Known | None, used: _Known | None
) -> dict[str, Any]:
    cost, tokens_in, tokens_out, count = (row[name] or 0 for name in _COSTS)
    priced_count = None if priced is None else priced.get(key, {}).get("total", 0)
    used_parts = " ".join(used.get(key, {})) if used is not None else ""
    return {
        "key": key,
        "cost_usd": float(cost) if priced_count or cost else None,
        "input_tokens": int(tokens_in) if "input" in used_parts or tokens_in else None,
        "output_tokens": int(tokens_out) if "output" in used_parts or tokens_out else None,
        "call_count": int(count),
        "unpriced_count": None if priced_count is None else int(count) - priced_count,
    }


def _latency_row(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    numbers = {name: row[key] for key, name in _LATENCIES.items()}
    seconds = {
        name: None if value is None else float(value) / 1000
        for name, value in numbers.items()
        if name != "count"
    }
    return {"key": _key(row, keys), "count": int(numbers["count"]), "output_tokens_per_s": None, **seconds}


def _by_tag(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Add up what the server gave per list of tags to what belongs to each tag."""
    place = list(keys).index("tag")
    sums: _Groups = {}
    for row in rows:
        for tag in dict.fromkeys(row["key"][place] or (None,)):
            key = (*row["key"][:place], tag, *row["key"][place + 1 :])
            own = sums.setdefault(key, {"key": key})
            for name, value in row.items():
                if name != "key" and (value is not None or name not in own):
                    own[name] = (own.get(name) or 0) + value if value is not None else None
    return list(sums.values())


def _frame(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    names = key_names(keys)
    table = [{**dict(zip(names, row["key"], strict=True)), **row} for row in rows]
    frame = pd.DataFrame(table, columns=[*names, *columns])
    return frame.assign(day=pd.to_datetime(frame["day"], utc=True)) if "day" in keys else frame


def _wire(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

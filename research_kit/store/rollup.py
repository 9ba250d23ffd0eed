"""Sums per hour, so that metrics over a million observations need not read them all.

Owns the table ``hourly`` and its freshness; what a query means is decided in `metrics_query`. Triggers of the
schema note every hour in which an observation came, changed or went in ``stale_hours``. Invariant: `source`
gives the same sums whatever has been rolled up so far: stale hours and the ends of a range are read from the
observations themselves.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from research_kit.store.metrics_schema import VIEWS
from research_kit.store.metrics_time import GRANULARITIES

if TYPE_CHECKING:
    from research_kit.store.database import Database
    from research_kit.store.metrics_query import Metric, MetricsQuery

__all__ = ["refresh_quiet_hours", "rolled_sql", "source", "source_values"]

HOUR_MS = 3_600_000
_KEYS = (
    "type",
    "name",
    "level",
    "environment",
    "model",
    "version",
    "release",
    "user_id",
    "trace_name",
    "tags",
    "prompt_name",
    "prompt_version",
    "is_root",
)
_MEASURES = {
    "latency": "latency",
    "streamingLatency": "streaming_latency",
    "timeToFirstToken": "time_to_first_token",
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "totalTokens": "total_tokens",
    "inputCost": "input_cost",
    "outputCost": "output_cost",
    "totalCost": "total_cost",
}
# coalesce as in SQL itself: a group may hold only rows that are not rolled up.
_AGGREGATIONS = {
    "sum": "sum(o.{name}_sum)",
    "count": "coalesce(sum(o.{name}_count), 0)",
    "avg": "sum(o.{name}_sum) / sum(o.{name}_count)",
}
_COUNT = {"count": "coalesce(sum(o.row_count), 0)", "sum": "sum(o.row_count * 1.0)"}
_COLUMN = re.compile(r'\bo\."?(\w+)"?')

_OBSERVATIONS = VIEWS["observations"]
_NAME_BY_SQL = {_OBSERVATIONS.measures[word].sql: name for word, name in _MEASURES.items()}
_QUOTED_KEYS = ", ".join(f'"{key}"' for key in _KEYS)
_PARTS = [part for name in _MEASURES.values() for part in (f"{name}_sum", f"{name}_count")]
_COLUMNS = f"{_QUOTED_KEYS}, row_count, {', '.join(_PARTS)}"


def _row_columns(*, is_grouped: bool) -> str:
    """Return keys, count and sums of one observation, or of a group of them."""
    rows = "count(*)" if is_grouped else "1"
    parts = [
        f"sum({sql} * 1.0), count({sql})" if is_grouped else f"{sql} * 1.0, {sql} IS NOT NULL"
        for sql in _NAME_BY_SQL
    ]
    return f"{', '.join(f'o.{key}' for key in _QUOTED_KEYS.split(', '))}, {rows}, {', '.join(parts)}"


_ONE_HOUR = (
    f"SELECT {_row_columns(is_grouped=True)} FROM observations AS o"
    f" WHERE o.start_ms >= :hour_ms AND o.start_ms < :hour_ms + {HOUR_MS} GROUP BY {_QUOTED_KEYS}"
)
_PLAIN = f"SELECT o.start_ms, {_row_columns(is_grouped=False)} FROM observations AS o"
_HOURS = "hour_ms >= :hours_from_ms AND hour_ms < :hours_to_ms"
_SOURCE = (
    f"(SELECT hour_ms AS start_ms, {_COLUMNS} FROM hourly"
    f" WHERE {_HOURS} AND hour_ms NOT IN (SELECT hour_ms FROM stale_hours)"
    f" UNION ALL {_PLAIN} WHERE o.start_ms >= :from_ms AND o.start_ms < :hours_from_ms"
    f" UNION ALL {_PLAIN} WHERE o.start_ms >= :hours_to_ms AND o.start_ms <= :to_ms"
    # CROSS JOIN fixes the order: the few stale hours first.
    f" UNION ALL {_PLAIN.replace('FROM', 'FROM stale_hours AS stale CROSS JOIN', 1)}"
    f" WHERE {_HOURS} AND o.start_ms >= stale.hour_ms AND o.start_ms < stale.hour_ms + {HOUR_MS}) AS o"
)


def source(query: MetricsQuery) -> str | None:
    """Return what stands behind FROM for a query that sums per hour can answer; None for any other."""
    values = source_values(query)
    if query.view is not _OBSERVATIONS or values["hours_from_ms"] >= values["hours_to_ms"]:
        return None
    if query.granularity is GRANULARITIES["minute"]:
        return None
    if any(rolled_sql(metric) is None for metric in query.metrics):
        return None
    if any(part.joins for part in query.dimensions.values()) or any(c.joins for c in query.conditions):
        return None
    grouped = [dimension.sql for dimension in query.dimensions.values()]
    filtered = [condition.sql for condition in query.conditions]
    # An hour lies within one month as within any bucket, but a filter may cut it.
    is_known = _reads_only(grouped, {*_KEYS, "start_ms"}) and _reads_only(filtered, set(_KEYS))
    return _SOURCE if is_known else None


def source_values(query: MetricsQuery) -> Mapping[str, int]:
    """Return the whole hours within the range of the query, as parameters of `source`."""
    return {
        "hours_from_ms": -(-query.from_ms // HOUR_MS) * HOUR_MS,
        "hours_to_ms": (query.to_ms + 1) // HOUR_MS * HOUR_MS,
    }


def rolled_sql(metric: Metric) -> str | None:
    """Return how a metric is computed from `source`; None when sums do not tell it."""
    if metric.measure is _OBSERVATIONS.measures["count"]:
        return _COUNT.get(metric.aggregation)
    name = _NAME_BY_SQL.get(metric.measure.sql)
    template = _AGGREGATIONS.get(metric.aggregation)
    return template.format(name=name) if name and template else None


def refresh_quiet_hours(database: Database, before: Mapping[int, int]) -> dict[int, int]:
    """Roll up the stale hours in which nothing has happened since the last look.

    Args:
        database: Where the observations are.
        before: What the last look returned; an empty mapping at the first one.

    Returns:
        The hours that are still stale, each with the mark of its last change.
    """
    with database.reading() as connection:
        stale: dict[int, int] = dict(connection.execute("SELECT hour_ms, change FROM stale_hours"))
    for hour_ms in [hour_ms for hour_ms, change in stale.items() if before.get(hour_ms) == change]:
        if _refresh_hour(database, hour_ms, stale[hour_ms]):
            del stale[hour_ms]
    return stale


def _refresh_hour(database: Database, hour_ms: int, change: int) -> bool:
    # Summing takes long and writing does not: writers wait for the second only.
    with database.reading() as connection:
        rows = connection.execute(_ONE_HOUR, {"hour_ms": hour_ms}).fetchall()
    with database.writing() as connection:
        if not _is_unchanged(connection, hour_ms, change):
            return False
        connection.execute("DELETE FROM hourly WHERE hour_ms = ?", (hour_ms,))
        marks = ", ".join("?" * (2 + len(_KEYS) + len(_PARTS)))
        connection.executemany(
            f"INSERT INTO hourly (hour_ms, {_COLUMNS}) VALUES ({marks})", [(hour_ms, *row) for row in rows]
        )
        connection.execute("DELETE FROM stale_hours WHERE hour_ms = ?", (hour_ms,))
    return True


def _is_unchanged(connection: sqlite3.Connection, hour_ms: int, change: int) -> bool:
    found = connection.execute("SELECT change FROM stale_hours WHERE hour_ms = ?", (hour_ms,)).fetchone()
    return bool(found == (change,))


def _reads_only(texts: Iterable[str], columns: set[str]) -> bool:
    return all(column in columns for text in texts for column in _COLUMN.findall(text))

"""Running a metrics query: one statement of SQL, and its rows as the answer shows them.

Owns the statement and the shape of rows. Invariant: grouping, ordering and limiting happen in SQLite, so
Python sees no more rows than the answer has.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from research_kit.store.metrics_numbers import aggregating
from research_kit.store.metrics_query import TIME_DIMENSION, Metric, MetricsQuery, Order
from research_kit.store.metrics_time import Granularity
from research_kit.store.metrics_tools import register_tool_functions
from research_kit.store.metrics_words import DimensionType
from research_kit.store.rollup import rolled_sql, source, source_values

__all__ = ["read_metrics"]

_SHARES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_VALUES = "json_group_array({value}) FILTER (WHERE {value} IS NOT NULL)"
# Summed as real numbers: a sum of whole numbers beyond 64 bits would be an error.
_AGGREGATIONS = {
    "sum": "sum({value} * 1.0)",
    "avg": "avg({value})",
    "count": "count({value})",
    "max": "max({value})",
    "min": "min({value})",
    "uniq": "count(DISTINCT {value})",
    "histogram": f"histogram({_VALUES}, :bin_count)",
    **{name: f"quantile({_VALUES}, {share})" for name, share in _SHARES.items()},
}
_ZERO_OVER_NOTHING = ("sum", "max", "min")
_EMPTY_DIMENSIONS: Mapping[DimensionType, Any] = {"boolean": False, "string[]": [], "number": None}
# Beyond this a real number no longer tells neighbouring whole numbers apart.
_MAX_WHOLE = 2**53


def read_metrics(connection: sqlite3.Connection, query: MetricsQuery) -> dict[str, Any]:
    """Return the answer to a query."""
    register_tool_functions(connection)
    with aggregating(connection):
        rows = connection.execute(_statement(query), _values(query)).fetchall()
    readers = _readers(query)
    answers: Iterator[dict[str, Any]] = (
        {name: read(value) for (name, read), value in zip(readers, row, strict=True)} for row in rows
    )
    if query.is_filled and query.granularity:
        answers = _filled(answers, query, query.granularity)
    return {"data": list(islice(answers, query.row_limit))}


def _statement(query: MetricsQuery) -> str:
    rolled = source(query)
    columns = _columns(query, is_rolled=rolled is not None)
    aliases = {name: f"column_{number}" for number, name in enumerate(columns)}
    selected = ", ".join(f"{sql} AS {aliases[name]}" for name, sql in columns.items())
    conditions = [
        query.view.condition,
        f"{query.view.time_sql} BETWEEN :from_ms AND :to_ms",
        *(condition.sql for condition in query.conditions),
    ]
    where = " AND ".join(f"({condition})" for condition in conditions)
    groups = ", ".join(aliases[name] for name in (*query.dimensions, *_time_names(query)))
    return (
        f"SELECT {selected} FROM {rolled or query.view.table} {' '.join(_joins(query))} WHERE {where}"
        f"{f' GROUP BY {groups}' if groups else ''}{_order_by(query.order, aliases)} LIMIT :row_limit"
    )


def _columns(query: MetricsQuery, *, is_rolled: bool) -> dict[str, str]:
    """Return the columns of the answer: dimensions, time, metrics."""
    columns = {name: dimension.sql for name, dimension in query.dimensions.items()}
    if query.granularity:
        columns[TIME_DIMENSION] = query.granularity.sql.format(time=query.view.time_sql)
    if not query.metrics:
        return {**columns, "count": "coalesce(sum(o.row_count), 0)" if is_rolled else "count(*)"}
    return {**columns, **{metric.name: _aggregated(metric, is_rolled) for metric in query.metrics}}


def _aggregated(metric: Metric, is_rolled: bool) -> str:
    sql = rolled_sql(metric) if is_rolled else None
    sql = sql or _AGGREGATIONS[metric.aggregation].format(value=metric.measure.sql)
    has_zero = not metric.measure.is_nullable and metric.aggregation in _ZERO_OVER_NOTHING
    return f"coalesce({sql}, 0)" if has_zero else sql


def _time_names(query: MetricsQuery) -> tuple[str, ...]:
    return (TIME_DIMENSION,) if query.granularity else ()


def _joins(query: MetricsQuery) -> list[str]:
    needed = [
        *(dimension.joins for dimension in query.dimensions.values()),
        *(metric.measure.joins for metric in query.metrics),
        *(condition.joins for condition in query.conditions),
    ]
    names = dict.fromkeys(name for joins in needed for name in joins)
    return [query.view.joins[name] for name in names]


def _order_by(order: Sequence[Order], aliases: Mapping[str, str]) -> str:
    terms = [f"{aliases[part.name]} {'DESC' if part.is_descending else 'ASC'} NULLS LAST" for part in order]
    return f" ORDER BY {', '.join(terms)}" if terms else ""


def _values(query: MetricsQuery) -> dict[str, Any]:
    values = {
        "from_ms": query.from_ms,
        "to_ms": query.to_ms,
        "row_limit": query.row_limit,
        "bin_count": query.bin_count,
        **source_values(query),
    }
    for condition in query.conditions:
        values.update(condition.values)
    return values


def _readers(query: MetricsQuery) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return for each column of the statement its name and how its values are shown."""
    readers: dict[str, Callable[[Any], Any]] = {
        name: _DIMENSION_READERS.get(dimension.value_type, _shown)
        for name, dimension in query.dimensions.items()
    }
    if query.granularity:
        readers[TIME_DIMENSION] = query.granularity.label_of
    if not query.metrics:
        readers["count"] = _shown
    for metric in query.metrics:
        readers[metric.name] = json.loads if metric.aggregation == "histogram" else _shown
    return list(readers.items())


def _shown(value: Any) -> Any:
    """Return whole numbers without a fraction."""
    is_whole = isinstance(value, float) and abs(value) < _MAX_WHOLE and value.is_integer()
    return int(value) if is_whole else value


_DIMENSION_READERS: Mapping[DimensionType, Callable[[Any], Any]] = {"string[]": json.loads, "boolean": bool}


def _filled(
    answers: Iterator[dict[str, Any]], query: MetricsQuery, granularity: Granularity
) -> Iterator[dict[str, Any]]:
    """Yield the rows, which are in the order of time, with one row for each bucket that has none."""
    empty = {
        **{
            name: _EMPTY_DIMENSIONS.get(dimension.value_type, "")
            for name, dimension in query.dimensions.items()
        },
        **({metric.name: _empty_value(metric) for metric in query.metrics} or {"count": 0}),
    }
    labels = map(granularity.label_of, granularity.buckets(query.from_ms, query.to_ms))
    row = next(answers, None)
    for label in labels:
        if row is None or row[TIME_DIMENSION] != label:
            yield {**empty, TIME_DIMENSION: label}
        while row is not None and row[TIME_DIMENSION] == label:
            yield row
            row = next(answers, None)
    if row is not None:
        yield row
        yield from answers


def _empty_value(metric: Metric) -> Any:
    if metric.aggregation == "histogram":
        return []
    return None if metric.measure.is_nullable and metric.aggregation not in ("count", "uniq") else 0

"""The ``query`` parameter of ``/api/public/v2/metrics``: JSON into a checked query.

Owns how the words of a query are looked up, and the refusals in the words of the recorded server; shape and
vocabulary are in `metrics_shape` and `metrics_schema`. Invariant: what leaves here can be run as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from research_kit.store.answers import bad_request, invalid_data, issue
from research_kit.store.metrics_filters import Filter, MetricsCondition, make_condition
from research_kit.store.metrics_schema import VIEWS
from research_kit.store.metrics_shape import FilterShape, MetricShape, QueryShape, check_shape
from research_kit.store.metrics_time import Granularity, get_granularity
from research_kit.store.metrics_words import Dimension, Measure, View
from research_kit.store.times import iso_to_ms

__all__ = ["TIME_DIMENSION", "Metric", "MetricsQuery", "Order", "parse_metrics_query"]

TIME_DIMENSION = "time_dimension"
"""The name of the time bucket in answers and in orders."""

_COUNTING = ("count", "uniq")
_DEFAULT_ROW_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One aggregated measure.

    Attributes:
        name: Its name in answers.
        measure: What is aggregated.
        aggregation: How.
    """

    name: str
    measure: Measure
    aggregation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A column of the answer to sort by."""

    name: str
    is_descending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsQuery:
    """One checked query.

    Attributes:
        view: What is asked.
        dimensions: What to group by, by the name in answers.
        metrics: What to compute; none counts rows.
        granularity: The width of time buckets; None for a result without time.
        conditions: All of them must hold.
        from_ms: The first time that counts.
        to_ms: The last time that counts.
        order: Columns to sort by.
        is_filled: Whether time buckets without rows are part of the answer.
        row_limit: The most rows to answer.
        bin_count: Bins of a histogram.
    """

    view: View
    dimensions: Mapping[str, Dimension]
    metrics: tuple[Metric, ...]
    granularity: Granularity | None
    conditions: tuple[MetricsCondition, ...]
    from_ms: int
    to_ms: int
    order: tuple[Order, ...]
    is_filled: bool
    row_limit: int
    bin_count: int


def parse_metrics_query(params: QueryParams) -> MetricsQuery:
    """Read the ``query`` parameter.

    Raises:
        ApiError: 400 when the query is malformed or asks for what the view does not have.
    """
    text = params.get("query")
    if text is None:
        raise invalid_data(issue(["query"], "Invalid input: expected string", code="invalid_type"))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise bad_request("Invalid JSON in query parameter") from None
    given = check_shape(content)
    view = VIEWS[given.view]
    _check_cardinality(given, view)
    dimensions = _dimensions(given, view)
    metrics = tuple(_metric(metric, view) for metric in given.metrics)
    _add_required_dimensions(dimensions, metrics, view)
    from_ms, to_ms = iso_to_ms(given.fromTimestamp), iso_to_ms(given.toTimestamp)
    time = given.timeDimension
    return MetricsQuery(
        view=view,
        dimensions=dimensions,
        metrics=metrics,
        granularity=get_granularity(time.granularity, from_ms, to_ms) if time else None,
        conditions=tuple(_conditions(given.filters, view)),
        from_ms=from_ms,
        to_ms=to_ms,
        order=_order(given, dimensions, metrics),
        is_filled=time is not None and not given.orderBy,
        row_limit=given.config.row_limit or _DEFAULT_ROW_LIMIT,
        bin_count=given.config.bins or 10,
    )


def _check_cardinality(given: QueryShape, view: View) -> None:
    """Refuse to group by what has about as many values as there are rows, unless only the top is asked."""
    fields = [dimension.field for dimension in given.dimensions]
    costly = [
        field for field in fields if field in view.dimensions and view.dimensions[field].is_high_cardinality
    ]
    if not costly:
        return
    what = f"High cardinality dimension(s) '{', '.join(costly)}'"
    if given.timeDimension:
        raise bad_request(
            f"{what} cannot be used with timeDimension. Time series queries with high cardinality dimensions "
            "produce unbounded result sets."
        )
    descending = [order.field for order in given.orderBy or () if order.direction == "desc"]
    if given.config.row_limit is None or not descending:
        raise bad_request(
            f"{what} require both 'config.row_limit' and 'orderBy' with direction 'desc' on a measure field."
        )
    measures = [metric.measure for metric in given.metrics]
    others = [
        field
        for field in descending
        if not any(field == measure or field.endswith(f"_{measure}") for measure in measures)
    ]
    if others:
        raise bad_request(
            f"{what} require 'orderBy' with direction 'desc' on a measure field. '{', '.join(others)}' "
            f"{'is' if len(others) == 1 else 'are'} not a measure in this query."
        )


def _dimensions(given: QueryShape, view: View) -> dict[str, Dimension]:
    for dimension in given.dimensions:
        if dimension.field not in view.dimensions:
            raise bad_request(
                f"Invalid dimension {dimension.field}. Must be one of {','.join(view.dimensions)}"
            )
    return {dimension.field: view.dimensions[dimension.field] for dimension in given.dimensions}


def _metric(given: MetricShape, view: View) -> Metric:
    measure = view.measures.get(given.measure)
    if measure is None:
        raise bad_request(f"Invalid metric {given.measure}. Must be one of {','.join(view.measures)}")
    if measure.value_type == "string" and given.aggregation not in _COUNTING:
        raise bad_request(
            f'Aggregation "{given.aggregation}" is not valid for measure "{given.measure}" '
            f"(type: string). Valid aggregations: {', '.join(_COUNTING)}"
        )
    return Metric(name=f"{given.aggregation}_{given.measure}", measure=measure, aggregation=given.aggregation)


def _add_required_dimensions(
    dimensions: dict[str, Dimension], metrics: tuple[Metric, ...], view: View
) -> None:
    for metric in metrics:
        if metric.measure.dimension:
            dimensions.setdefault(metric.measure.dimension, view.dimensions[metric.measure.dimension])
    pairs = [name for name, dimension in dimensions.items() if dimension.is_pair]
    if len(pairs) > 1:
        raise bad_request(f"Only one pairExpand dimension is supported per query. Found: {', '.join(pairs)}")


def _conditions(given: list[FilterShape], view: View) -> list[MetricsCondition]:
    filters = [
        Filter(
            column=part.column,
            filter_type=part.type,
            operator=part.operator,
            value=part.value,
            key=part.key or "",
        )
        for part in given
    ]
    return [make_condition(wanted, view, number=number) for number, wanted in enumerate(filters)]


def _order(
    given: QueryShape, dimensions: Mapping[str, Dimension], metrics: tuple[Metric, ...]
) -> tuple[Order, ...]:
    if not given.orderBy:
        if given.timeDimension:
            return (Order(name=TIME_DIMENSION, is_descending=False),)
        if metrics:
            return (Order(name=metrics[0].name, is_descending=True),)
        return tuple(Order(name=name, is_descending=False) for name in list(dimensions)[:1])
    sortable = {*dimensions, *(metric.name for metric in metrics if metric.aggregation != "histogram")}
    if given.timeDimension:
        sortable.add(TIME_DIMENSION)
    for order in given.orderBy:
        if order.field not in sortable:
            raise bad_request(
                f"Invalid orderBy field: {order.field}. Must be one of the dimension or metric fields."
            )
    return tuple(Order(name=order.field, is_descending=order.direction == "desc") for order in given.orderBy)

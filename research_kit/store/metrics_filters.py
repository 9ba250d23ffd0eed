"""The ``filters`` of a metrics query: conditions into SQL.

Owns which type of filter fits which dimension; the shape of a condition is checked in `metrics_query`.
Invariant: a condition that does not fit refuses the query; none is ever ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.store.answers import bad_request
from research_kit.store.filter_operators import OPERATORS, bound_value
from research_kit.store.metrics_words import Dimension, DimensionType, View

__all__ = ["Filter", "MetricsCondition", "make_condition"]

_FITTING_TYPES: Mapping[DimensionType, tuple[str, ...]] = {
    "string": ("string", "stringOptions"),
    "number": ("number",),
    "boolean": ("boolean",),
    "string[]": ("arrayOptions",),
    "arrayString": ("arrayOptions",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition as a query states it, its shape already checked."""

    column: str
    filter_type: str
    operator: str
    value: Any
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsCondition:
    """One condition as SQL.

    Attributes:
        sql: A truth value with named parameters.
        values: The parameters.
        joins: Names of joins of the view that ``sql`` needs.
    """

    sql: str
    values: Mapping[str, Any]
    joins: tuple[str, ...]


def make_condition(wanted: Filter, view: View, *, number: int) -> MetricsCondition:
    """Translate one condition.

    Args:
        wanted: The condition.
        view: What is asked.
        number: Makes the names of the parameters unique within the query.

    Raises:
        ApiError: 400 when the column is unknown or the type of the filter does not fit it.
    """
    dimension = _find_dimension(wanted.column, view)
    if dimension is not None:
        _check_fit(wanted, dimension)
        # Only a question about null takes an empty text for none; an array is never spread for a filter.
        asks_shown = wanted.filter_type == "null" and dimension.value_type != "arrayString"
        column = dimension.sql if asks_shown else dimension.stored_sql
        joins = dimension.filter_joins
    else:
        column, joins = _special_column(wanted, view, number), ()
    sql = OPERATORS[wanted.filter_type][wanted.operator]
    values = {f"value_{number}": bound_value(wanted.filter_type, wanted.value), f"key_{number}": wanted.key}
    return MetricsCondition(
        sql=sql.format(column=column, value=f":value_{number}"), values=values, joins=joins
    )


def _find_dimension(name: str, view: View) -> Dimension | None:
    # The recorded server reads any other name that ends so (scoreName) as the plain name.
    return view.dimensions.get(name) or (view.dimensions["name"] if name.endswith("Name") else None)


def _check_fit(wanted: Filter, dimension: Dimension) -> None:
    if not dimension.is_filterable:
        raise bad_request(f"Field '{wanted.column}' cannot be used as a filter.")
    fitting = _FITTING_TYPES[dimension.value_type]
    if wanted.filter_type not in (*fitting, "null"):
        expected = " or ".join(f"'{name}'" for name in fitting)
        raise bad_request(
            f"Invalid filter for field '{wanted.column}': Filter type '{wanted.filter_type}' is not "
            f"supported for dimension type '{dimension.value_type}'. Expected {expected}."
        )


def _special_column(wanted: Filter, view: View, number: int) -> str:
    if wanted.column == view.time_name:
        if wanted.filter_type != "datetime":
            raise bad_request(
                f"Invalid filter for field '{wanted.column}': Filter type '{wanted.filter_type}' is not "
                f"supported for time dimension '{wanted.column}'. Expected 'datetime'."
            )
        return view.time_sql
    if wanted.column == "metadata":
        if wanted.filter_type != "stringObject":
            raise bad_request(
                "Invalid filter for field 'metadata': Metadata filters require type 'stringObject' with a "
                f"'key' property, not '{wanted.filter_type}'. "
                'Example: {"column": "metadata", "type": "stringObject", "key": "environment", '
                '"operator": "=", "value": "production"}'
            )
        return f"(SELECT value FROM json_each({view.metadata_sql}) WHERE key = :key_{number})"
    raise bad_request(
        f"Invalid filter column {wanted.column}. Must be one of {','.join(view.dimensions)} "
        f"or {view.time_name}"
    )

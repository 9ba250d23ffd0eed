"""The ``filters`` of a metrics query: conditions into SQL.

Owns the operators of each type of filter and which type fits which dimension; the shape of a condition is
checked in `metrics_query`. Invariant: a condition that does not fit refuses the query; none is ever ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.store.answers import bad_request
from research_kit.store.metrics_words import Dimension, DimensionType, View
from research_kit.store.times import iso_to_ms

__all__ = ["OPERATORS", "Filter", "MetricsCondition", "make_condition"]

_STRING_SQL = {
    "=": "{column} = {value}",
    "contains": "instr({column}, {value}) > 0",
    "does not contain": "instr({column}, {value}) = 0",
    "starts with": "substr({column}, 1, length({value})) = {value}",
    "ends with": "substr({column}, length({column}) - length({value}) + 1) = {value}",
}
_IN_LIST = "(SELECT value FROM json_each({value}))"
_OPTIONS_SQL = {"any of": f"{{column}} IN {_IN_LIST}", "none of": f"{{column}} NOT IN {_IN_LIST}"}
_ANY_PART = f"EXISTS (SELECT 1 FROM json_each({{column}}) WHERE value IN {_IN_LIST})"
_ARRAY_SQL = {
    "any of": _ANY_PART,
    "none of": f"NOT {_ANY_PART}",
    "all of": (
        "NOT EXISTS (SELECT 1 FROM json_each({value})"
        " WHERE value NOT IN (SELECT value FROM json_each({column})))"
    ),
}
_COMPARISON_SQL = {operator: f"{{column}} {operator} {{value}}" for operator in ("=", ">", "<", ">=", "<=")}
_BOOLEAN_SQL = {"=": "{column} = {value}", "<>": "{column} <> {value}"}

OPERATORS: Mapping[str, Mapping[str, str]] = {
    "string": _STRING_SQL,
    "stringOptions": _OPTIONS_SQL,
    "arrayOptions": _ARRAY_SQL,
    "categoryOptions": _OPTIONS_SQL,
    "number": _COMPARISON_SQL,
    "datetime": {operator: sql for operator, sql in _COMPARISON_SQL.items() if operator != "="},
    "boolean": _BOOLEAN_SQL,
    "null": {"is null": "{column} IS NULL", "is not null": "{column} IS NOT NULL"},
    "stringObject": _STRING_SQL,
    "numberObject": _COMPARISON_SQL,
    "booleanObject": _BOOLEAN_SQL,
}
"""The operators of each type of filter, as SQL."""

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
    values = {f"value_{number}": _bound_value(wanted), f"key_{number}": wanted.key}
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


def _bound_value(wanted: Filter) -> Any:
    if wanted.filter_type.endswith("Options"):
        return json.dumps(wanted.value)
    return iso_to_ms(wanted.value) if wanted.filter_type == "datetime" else wanted.value

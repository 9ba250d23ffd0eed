"""The shape of a metrics query: which parts it has, and of which types.

Owns what can be said of a query without knowing the views. Invariant: texts that come out of here can be
bound to SQL, and times can be written again.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from research_kit.store.answers import invalid_data, issue
from research_kit.store.filter_operators import OPERATORS
from research_kit.store.jsontext import storable
from research_kit.store.times import is_full_iso, iso_to_ms, ms_to_iso

__all__ = ["FilterShape", "MetricShape", "QueryShape", "check_shape"]


def _check_storable(text: str) -> str:
    if storable(text) != text:
        raise ValueError("Invalid input: text with half of a surrogate pair")
    return text


def _check_datetime(text: str) -> str:
    if not is_full_iso(text):
        raise ValueError("Invalid ISO datetime")
    try:
        # An offset can push the first and the last day of the calendar over its edge.
        ms_to_iso(iso_to_ms(text))
    except OverflowError:
        raise ValueError("Invalid ISO datetime") from None
    return text


_Text = Annotated[str, AfterValidator(_check_storable)]
_DateTime = Annotated[str, AfterValidator(_check_datetime)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class FilterShape(_Part):
    """One condition."""

    column: _Text
    type: Literal[
        "datetime",
        "string",
        "number",
        "stringOptions",
        "categoryOptions",
        "arrayOptions",
        "stringObject",
        "numberObject",
        "booleanObject",
        "boolean",
        "null",
    ]
    operator: str
    value: _Text | bool | FiniteFloat | list[_Text]
    key: _Text | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.operator not in OPERATORS[self.type]:
            options = "|".join(json.dumps(operator) for operator in OPERATORS[self.type])
            raise ValueError(f"Invalid option: expected one of {options}")
        has_key = self.type.endswith("Object") or self.type == "categoryOptions"
        if has_key and self.key is None:
            raise ValueError("Invalid input: expected string, received undefined")
        if not _is_value_of(self.type, self.value):
            raise ValueError(f"Invalid input: no value for a filter of type {self.type}")
        if self.value == [] and self.operator == "any of":
            raise ValueError("Value array must not be empty")
        return self


def _is_value_of(filter_type: str, value: object) -> bool:
    if filter_type.endswith("Options"):
        return isinstance(value, list)
    if filter_type.startswith("boolean"):
        return isinstance(value, bool)
    if filter_type.startswith("number"):
        return isinstance(value, float)
    if filter_type == "null":
        return value == ""
    return isinstance(value, str) and (filter_type != "datetime" or _is_date(value))


def _is_date(text: str) -> bool:
    try:
        iso_to_ms(text)
    except (ValueError, OverflowError):
        return False
    return True


class DimensionShape(_Part):
    """Something to group by."""

    field: str


class MetricShape(_Part):
    """One aggregated measure."""

    measure: str
    aggregation: Literal[
        "sum", "avg", "count", "max", "min", "p50", "p75", "p90", "p95", "p99", "histogram", "uniq"
    ]


class TimeShape(_Part):
    """The width of time buckets."""

    granularity: Literal["auto", "minute", "hour", "day", "week", "month"]


class OrderShape(_Part):
    """A column to sort by."""

    field: str
    direction: Literal["asc", "desc"]


class ConfigShape(_Part):
    """Limits of the answer."""

    bins: int | None = Field(default=None, ge=1, le=100)
    row_limit: int | None = Field(default=None, gt=0, le=1000)


class QueryShape(_Part):
    """A whole query, under the names of the wire."""

    view: Literal["observations", "scores-numeric", "scores-categorical", "scores-boolean"]
    dimensions: list[DimensionShape] = []
    metrics: list[MetricShape]
    filters: list[FilterShape] = []
    timeDimension: TimeShape | None = None
    fromTimestamp: _DateTime
    toTimestamp: _DateTime
    orderBy: list[OrderShape] | None = None
    config: ConfigShape = ConfigShape()

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if iso_to_ms(self.fromTimestamp) >= iso_to_ms(self.toTimestamp):
            raise ValueError("fromTimestamp must be before toTimestamp")
        return self


def check_shape(content: Any) -> QueryShape:
    """Check a query that was parsed from JSON.

    Raises:
        ApiError: 400 with one issue per wrong part.
    """
    try:
        return QueryShape.model_validate(content)
    except ValidationError as error:
        issues = [
            issue(["query", *found["loc"]], found["msg"], code=found["type"]) for found in error.errors()
        ]
        raise invalid_data(*issues) from None

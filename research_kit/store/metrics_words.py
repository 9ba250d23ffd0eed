"""What is known of a view of metrics, of a dimension and of a measure.

Owns the types that `metrics_schema` fills in. Invariant: they are plain values and run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Dimension", "DimensionType", "Measure", "View"]

DimensionType = Literal["string", "number", "boolean", "string[]", "arrayString"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """Something to group by or to filter by.

    Attributes:
        sql: The value of one row; NULL where there is none.
        stored_sql: The value as filters see it: missing texts are empty, arrays are whole.
        value_type: The type that filters and answers go by.
        is_high_cardinality: Whether grouping by it needs a limit and an order.
        joins: Names of joins of the view that ``sql`` needs.
        filter_joins: Names of joins of the view that ``stored_sql`` needs.
        is_filterable: Whether it can be a filter column.
        is_pair: Whether it spreads the keys of an object over rows.
    """

    sql: str
    stored_sql: str
    value_type: DimensionType = "string"
    is_high_cardinality: bool = False
    joins: tuple[str, ...] = ()
    filter_joins: tuple[str, ...] = ()
    is_filterable: bool = True
    is_pair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Something to aggregate.

    Attributes:
        sql: The value of one row.
        value_type: ``string`` can only be counted.
        is_nullable: Whether a row can lack the value; sums over nothing are then null, else 0.
        joins: Names of joins of the view that ``sql`` needs.
        dimension: A dimension that is added to the query when it is not there.
    """

    sql: str
    value_type: Literal["integer", "decimal", "number", "string"]
    is_nullable: bool = True
    joins: tuple[str, ...] = ()
    dimension: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One kind of rows.

    Attributes:
        table: What stands behind FROM.
        condition: What all rows of the view fulfil.
        time_sql: The time of a row in milliseconds.
        time_name: The name under which filters know the time.
        metadata_sql: Metadata of a row as a JSON object with the stored texts.
        dimensions: By name, in the order in which refusals list them.
        measures: By name, in the order in which refusals list them.
        joins: By name; they may use ``:from_ms`` and ``:to_ms``.
    """

    table: str
    condition: str
    time_sql: str
    time_name: str
    metadata_sql: str
    dimensions: Mapping[str, Dimension]
    measures: Mapping[str, Measure]
    joins: Mapping[str, str]

"""Arrow tables from rows, and frames of pandas or polars from tables.

Owns dtypes; knows no server. Invariant: a table has exactly the columns of its schema, in order and with
their types, whatever the rows are and also when there are none; JSON columns hold texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from research_kit._optional import require
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.traces.jsonarray import JsonArray
from research_kit.traces.schema import Column, Dtype, Schema
from research_kit.traces.wire import json_text_of

__all__ = [
    "ARROW_TYPES",
    "MEMORY_POOL",
    "TEXT",
    "FrameKind",
    "as_kind",
    "build_table",
    "check_kind",
    "to_pandas",
]

FrameKind = Literal["pandas", "polars", "arrow"]

# Named, because pandas 2 keeps "string" as Python objects, which do not mix with these.
TEXT = pd.StringDtype("pyarrow")
# Long texts of many rows together pass the 2 GB that short offsets can address.
_TEXT = pa.large_string()
_TIME = pa.timestamp("ns", tz="UTC")
# Arrow's own pool keeps what growing columns leave behind: half as much again as the columns of a read.
MEMORY_POOL = pa.system_memory_pool()
ARROW_TYPES: Mapping[Dtype, pa.DataType] = {
    "string": _TEXT,
    "json": _TEXT,
    "Int64": pa.int64(),
    "float64": pa.float64(),
    "boolean": pa.bool_(),
    "datetime64[ns, UTC]": _TIME,
}


def build_table(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return one row per element of ``rows``, with the columns of ``schema``.

    Raises:
        ResearchKitError: When a value does not fit its column.
    """
    fields = pa.schema([(column.name, ARROW_TYPES[column.dtype]) for column in schema])
    return pa.table([_column(column, rows) for column in schema], schema=fields)


def to_pandas(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return the columns of ``schema`` as a DataFrame, with their dtypes."""
    columns = {column.name: _to_pandas(table[column.name], column.dtype) for column in schema}
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), copy=False)


def as_kind(table: pa.Table, schema: Schema, kind: FrameKind, *, more: bool = False) -> Any:
    """Return the columns of ``schema``, and ``more`` that are there, as the kind of frame that is asked for.

    Raises:
        MissingExtraError: When polars is asked for and not installed.
        ConfigError: When there is no such kind.
    """
    check_kind(kind)
    if kind == "pandas":
        return to_pandas(table, schema)
    selected = table if more else table.select([column.name for column in schema])
    if kind == "arrow":
        return selected
    return require("polars", extra="polars", purpose='read frames with as_="polars"').from_arrow(selected)


def check_kind(kind: str) -> None:
    """Refuse a kind of frame that does not exist.

    Raises:
        ConfigError: When it is none.
    """
    if kind not in ("pandas", "polars", "arrow"):
        raise ConfigError(f"as_ is {kind!r}. Use 'pandas', 'polars' or 'arrow'.")


def _to_pandas(values: pa.ChunkedArray, dtype: Dtype) -> Any:
    match dtype:
        case "string":
            return TEXT.__from_arrow__(values)  # type: ignore[attr-defined] # documented
        case "json":
            return JsonArray(values)
        case "Int64":
            return pd.Int64Dtype().__from_arrow__(values)  # type: ignore[attr-defined]
        case "boolean":
            return pd.BooleanDtype().__from_arrow__(values)  # type: ignore[attr-defined]
        case "float64":
            return values.to_numpy()
    # Ten times as fast as Arrow's own way, which matters for the many small frames.
    return pd.DatetimeIndex(values.to_numpy()).tz_localize("UTC").array


def _column(column: Column, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    values = [*map(column.read, rows)]
    try:
        return _convert(values, column.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise _misfit(column, values, error) from error


def _convert(values: list[Any], dtype: Dtype) -> pa.Array:
    if dtype == "json":
        return _texts([json_text_of(value) if not isinstance(value, str) else value for value in values])
    if dtype == "string":
        return _texts(values)
    if dtype == "datetime64[ns, UTC]" and any(isinstance(value, str) for value in values):
        return pc.cast(pa.array(values, type=_TEXT, memory_pool=MEMORY_POOL), _TIME)
    return pa.array(values, type=ARROW_TYPES[dtype], from_pandas=True, memory_pool=MEMORY_POOL)


def _texts(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, type=_TEXT, from_pandas=True, memory_pool=MEMORY_POOL)
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can carry and UTF-8 cannot
        known = (
            value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values
        )
        return pa.array(known, type=_TEXT, from_pandas=True, memory_pool=MEMORY_POOL)


def _misfit(column: Column, values: list[Any], error: Exception) -> ResearchKitError:
    """Say which value of a column does not fit; the first one that fails alone."""
    for number, value in enumerate(values):
        try:
            _convert([value], column.dtype)
        except (TypeError, ValueError, OverflowError):
            return ResearchKitError(
                f"Cannot build column {column.name!r} ({column.dtype}): row {number} has {value!r}, "
                f"a {type(value).__name__}. The server sends something that this version does not know; "
                "update research-kit, or read less with start_time, end_time or trace_id."
            )
    return ResearchKitError(f"Cannot build column {column.name!r} ({column.dtype}): {error}.")

"""Arrow tables from rows, and frames of pandas or polars from tables.

Owns dtypes; knows no server. Invariant: a table has exactly the columns of its schema, in order and with
their types, whatever the rows are and also when there are none; JSON columns hold texts.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from research_kit._notices import warn_user
from research_kit._optional import require
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.traces.jsonarray import JsonArray
from research_kit.traces.schema import Column, Dtype, Schema
from research_kit.traces.wire import json_text_of
from research_kit.wire import plain_words

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


# What reading and converting values of any type can raise.
_MISFITS = (TypeError, ValueError, OverflowError, AttributeError, LookupError, RecursionError)
_LARGEST_INT = 2**63 - 1
_TIME_TEXT = re.compile(r"\d{4}-\d\d-\d\dT", re.ASCII)


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
    try:
        values = _convert([*map(column.read, rows)], column.dtype)
    except _MISFITS:
        values, odd_count = _without_odd_values(column, rows)
    else:
        values, odd_count = _without_infinities(values)
    if odd_count:
        warn_user(
            f"{odd_count} of {len(rows)} values of {column.name!r} are missing: they are beyond what a "
            f"{column.dtype} can hold."
        )
    return values


def _without_infinities(values: pa.Array) -> tuple[pa.Array, int]:
    """Return the values, and how many were infinite, which would make every sum infinite."""
    if not pa.types.is_floating(values.type):
        return values, 0
    is_odd = pc.is_inf(values)
    odd_count = pc.sum(is_odd).as_py() or 0
    return (pc.if_else(is_odd, None, values) if odd_count else values), odd_count


def _without_odd_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> tuple[pa.Array, int]:
    """Return the values without numbers and times that are too large, and how many these are.

    Raises:
        ResearchKitError: When a value is of another type, so that the column means something else.
    """
    values: list[Any] = []
    odd_count = 0
    for number, row in enumerate(rows):
        value = None
        try:
            value = column.read(row)
            _check_time(value, column.dtype)
            _convert([value], column.dtype)
        except _MISFITS as error:
            if not (isinstance(error, OverflowError) or _is_beyond(value, column.dtype)):
                raise _misfit(column, number, value, error) from error
            value, odd_count = None, odd_count + 1
        values.append(value)
    converted, infinite_count = _without_infinities(_convert(values, column.dtype))
    return converted, odd_count + infinite_count


def _check_time(value: object, dtype: Dtype) -> None:
    # A number alone would be taken as nanoseconds, and fail beside texts.
    if dtype.startswith("datetime") and not isinstance(value, str | None):
        raise TypeError("a time is a text")


def _is_beyond(value: object, dtype: Dtype) -> bool:
    """Whether a value is one of its column, but too large for it."""
    if dtype == "Int64":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > _LARGEST_INT
    return dtype.startswith("datetime") and isinstance(value, str) and bool(_TIME_TEXT.match(value))


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


def _misfit(column: Column, number: int, value: object, error: Exception) -> ResearchKitError:
    """Say which value of a column does not fit."""
    shown = f"{reprlib.repr(value)}, a {type(value).__name__}" if value is not None else "what cannot be read"
    return ResearchKitError(
        f"Cannot build column {column.name!r} ({column.dtype}): row {number} has {shown}: "
        f"{plain_words(str(error))}. "
        "The server sends something that this version does not know; update research-kit, or read less with "
        "start_time, end_time or trace_id."
    )

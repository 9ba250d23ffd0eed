"""Frames from rows: the only place where a DataFrame of the read path is made.

Owns dtypes; knows no server. Invariant: a frame has exactly the columns of its schema, in order and with
their dtypes, whatever the rows are and also when there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from research_kit.errors import ResearchKitError
from research_kit.traces.schema import Column, Schema

__all__ = ["build_frame"]


def build_frame(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per element of ``rows``, with the columns of ``schema``.

    Raises:
        ResearchKitError: When a value does not fit its column.
    """
    index = pd.RangeIndex(len(rows))
    return pd.DataFrame({column.name: _series(column, rows, index) for column in schema}, index=index)


def _series(column: Column, rows: Sequence[Mapping[str, Any]], index: pd.RangeIndex) -> pd.Series[Any]:
    values = [column.read(row) for row in rows]
    try:
        return _convert(values, column).set_axis(index)
    except (TypeError, ValueError, OverflowError) as error:
        raise _misfit(column, values, error) from error


def _convert(values: list[Any], column: Column) -> pd.Series[Any]:
    if column.dtype == "datetime64[ns, UTC]":
        # Parsing gives the unit that the texts need; the schema promises nanoseconds.
        parsed = pd.to_datetime(pd.Series(values, dtype="object"), utc=True, format="ISO8601")
        return parsed.astype("datetime64[ns, UTC]")
    return pd.Series(values, dtype=column.dtype)


def _misfit(column: Column, values: list[Any], error: Exception) -> ResearchKitError:
    """Say which value of a column does not fit; the first one that fails alone."""
    for number, value in enumerate(values):
        try:
            _convert([value], column)
        except (TypeError, ValueError, OverflowError):
            return ResearchKitError(
                f"Cannot build column {column.name!r} ({column.dtype}): row {number} has {value!r}, "
                f"a {type(value).__name__}. The server sends something that this version does not know; "
                "update research-kit, or read less with start_time, end_time or trace_id."
            )
    return ResearchKitError(f"Cannot build column {column.name!r} ({column.dtype}): {error}.")

"""Columns of a DataFrame as Arrow arrays that DuckDB knows.

Owns which kinds of column there are and how each is handed over; computes nothing. Invariant: every column
can be handed over, whatever its dtype and values: what DuckDB does not know becomes text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from research_kit.agent.queries.answers import plain
from research_kit.agent.variables import class_name

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Column", "Kind", "Values", "clean_text", "value_text"]

Kind = Literal["boolean", "category", "number", "other", "span", "text", "time"]

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A column as it is handed over.

    Attributes:
        array: The values.
        read: Turns a value of a result back into the column's own.
        is_coded: The array holds numbers that stand for the values, in their order.
    """

    array: pa.Array | pa.ChunkedArray
    read: Callable[[Any], Any] = plain
    is_coded: bool = False


class Column:
    """One column, by position: names may be no strings, or occur twice."""

    def __init__(self, series: pd.Series, name: str) -> None:
        self.series = series
        self.name = name

    @cached_property
    def kind(self) -> Kind:
        """What the values are; of ``object`` columns what is in them."""
        import pandas as pd

        types, dtype = pd.api.types, self.series.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            return "category"
        if types.is_object_dtype(dtype):
            return _KINDS.get(types.infer_dtype(self.series, skipna=True), "other")
        if types.is_complex_dtype(dtype):
            return "other"
        checks: dict[Kind, Callable[[Any], bool]] = {
            "boolean": types.is_bool_dtype,
            "number": types.is_numeric_dtype,
            "time": types.is_datetime64_any_dtype,
            "span": types.is_timedelta64_dtype,
            "text": types.is_string_dtype,
        }
        return next((kind for kind, fits in checks.items() if fits(dtype)), "other")

    @property
    def has_unknowns(self) -> bool:
        """True when comparing a missing value is neither true nor false: pandas' NA, not its NaN."""
        import pandas as pd

        return getattr(self.series.dtype, "na_value", None) is pd.NA

    @property
    def is_ordered(self) -> bool:
        """True when the categories of a category column have an order."""
        return bool(self.series.cat.ordered)

    @cached_property
    def natural_kind(self) -> Kind:
        """What the values are in `natural`."""
        import pyarrow as pa

        if self.kind == "category":
            return Column(self.categories.to_series(), self.name).kind
        is_decimal = self.kind == "other" and pa.types.is_decimal(self.natural.type)
        return "number" if is_decimal else self.kind

    @property
    def categories(self) -> pd.Index:
        """The categories of a category column, in their order."""
        categories: pd.Index = self.series.cat.categories
        return categories

    @cached_property
    def values(self) -> Values:
        """The values such that comparing, ordering and grouping them is exact."""
        if self.kind == "category":
            return _coded(self.series.cat.codes.to_numpy(), self.categories)
        try:
            if self.kind in ("number", "boolean", "text"):
                return Values(array=_arrow(self.series))
            if self.kind in ("time", "span"):
                return _counted(self.series)
        except _REFUSALS:
            pass
        return self._ordered()

    @cached_property
    def texts(self) -> pa.Array | pa.ChunkedArray:
        """The values as text, with missing ones."""
        import pyarrow as pa

        if self.kind == "category":
            codes = _codes(self.series)
            return pa.DictionaryArray.from_arrays(
                codes, pa.array(map(value_text, self.categories), pa.string())
            )
        try:
            if self.kind == "text":
                return _arrow(self.series)
        except _REFUSALS:
            pass
        return _texts(self.series)

    @cached_property
    def natural(self) -> pa.Array | pa.ChunkedArray:
        """The values in the type of DuckDB that is nearest to their own."""
        try:
            if self.kind == "category" and self.natural_kind in ("boolean", "number"):
                return _arrow(self.categories.to_series()).take(_codes(self.series))
            array = self.texts if self.kind == "category" else _arrow(self.series)
        except _REFUSALS:
            return self.texts
        return array if self.kind == "category" or _is_known(array.type) else self.texts

    @cached_property
    def nanoseconds(self) -> int:
        """Nanoseconds of the unit in which points in time are counted."""
        return _NANOSECONDS[_arrow(self.series[:0]).type.unit]

    def _ordered(self) -> Values:
        """Number the different values in their order; as texts when they have none."""
        import pandas as pd

        if self.kind == "other" and _is_mixed(self.series):
            return Values(array=self.texts)
        try:
            codes, different = pd.factorize(self.series, sort=True)
        except (*_REFUSALS, AttributeError):
            return Values(array=self.texts)
        return _coded(codes, different)


_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "empty": "text",
    "floating": "number",
    "integer": "number",
    "mixed-integer-float": "number",
    "string": "text",
}
# What Arrow and pandas say of values that they cannot convert, compare or hash.
_REFUSALS = (TypeError, ValueError, ArithmeticError, NotImplementedError, KeyError)


def value_text(value: object) -> str:
    """Return one value as text; JSON for Python's own containers."""
    try:
        if type(value) in (dict, list, tuple):
            return clean_text(json.dumps(value, ensure_ascii=False, default=str))
        return clean_text(str(value))
    except Exception:  # noqa: BLE001 -- the value's class may be any, and raise anything
        return f"<{class_name(value)}>"


def clean_text(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _arrow(series: pd.Series) -> pa.Array | pa.ChunkedArray:
    """Return the values as Arrow sees them, NaN as missing."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if isinstance(series.dtype, pd.SparseDtype):
        series = pd.Series(np.asarray(series))
    if (
        isinstance(series.dtype, np.dtype)
        and series.dtype.kind == "f"
        and series.dtype.itemsize not in (4, 8)
    ):
        series = series.astype("float32" if series.dtype.itemsize < 4 else "float64")
    array = pa.Array.from_pandas(series)
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _counted(series: pd.Series) -> Values:
    """Return points in time, or spans, as whole numbers of their unit."""
    import pyarrow as pa

    array = _arrow(series)
    own = array.type

    def read(count: int | None) -> Any:
        if count is None:
            return None
        return plain(pa.array([count], pa.int64()).cast(own).to_pandas().iloc[0])

    return Values(array=array.cast(pa.int64()), read=read)


def _coded(codes: Any, different: Any) -> Values:
    import pyarrow as pa

    def read(code: int | None) -> Any:
        return None if code is None else plain(different[code])

    return Values(array=pa.array(codes, mask=codes < 0), read=read, is_coded=True)


def _codes(series: pd.Series) -> pa.Array:
    """Return the places of the categories, row by row."""
    import pyarrow as pa

    codes = series.cat.codes.to_numpy()
    return pa.array(codes, mask=codes < 0)


def _texts(series: pd.Series) -> pa.Array:
    import pyarrow as pa

    missing = series.isna().to_numpy(dtype=bool)
    texts = [
        None if is_missing else value_text(value) for value, is_missing in zip(series, missing, strict=True)
    ]
    return pa.array(texts, pa.string())


def _is_mixed(series: pd.Series) -> bool:
    """Return True for objects of several classes, or of classes with an order of their own."""
    import pandas as pd

    return (
        pd.api.types.is_object_dtype(series.dtype)
        and pd.api.types.infer_dtype(series, skipna=True) not in _COMPARABLE
    )


_COMPARABLE = frozenset(
    {"date", "datetime", "datetime64", "decimal", "interval", "period", "time", "timedelta"}
)


def _is_known(kind: pa.DataType) -> bool:
    """Return True for the types that DuckDB reads as they are, and for lists of them."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_known(kind.value_type)
    checks = (
        types.is_boolean,
        types.is_integer,
        types.is_float32,
        types.is_float64,
        types.is_decimal128,
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_date,
        types.is_time,
        types.is_timestamp,
        types.is_duration,
    )
    return any(check(kind) for check in checks)

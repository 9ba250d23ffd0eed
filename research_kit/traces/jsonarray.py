"""A pandas column of JSON values that are parsed when they are looked at.

Owns the dtype ``json``: the texts as the server sent them, in Arrow memory, so that a frame of 100,000 inputs
is there at once and takes no more than its text. Invariant: reading an element gives the Python value that
`wire.json_value` gives; changing that value in place does not change the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import (
    ExtensionArray,
    ExtensionDtype,
    register_extension_dtype,
    take,
)

from research_kit.traces.wire import json_text_of, json_value

__all__ = ["JsonArray", "JsonDtype"]

_Type = type[object]
_ArrayType = type["JsonArray"]


@register_extension_dtype
class JsonDtype(ExtensionDtype):
    """The dtype of `JsonArray`."""

    name: ClassVar[str] = "json"
    kind: ClassVar[Literal["O"]] = "O"
    na_value: ClassVar[None] = None

    @property
    def type(self) -> _Type:  # type: ignore[override] # as pandas documents it
        """What an element can be: anything."""
        return object

    @classmethod
    def construct_array_type(cls) -> _ArrayType:
        """Return the array that belongs to the dtype."""
        return JsonArray

    def __from_arrow__(self, texts: pa.Array | pa.ChunkedArray) -> JsonArray:
        """Make an array of JSON texts, as `pandas.read_parquet` asks."""
        return JsonArray(texts)


class JsonArray(ExtensionArray):
    """An array of JSON texts that shows the values that they hold.

    Args:
        texts: JSON texts; other texts stand for themselves.
    """

    def __init__(self, texts: pa.Array | pa.ChunkedArray) -> None:
        chunked = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
        self._texts = chunked.cast(pa.large_string())

    @property
    def dtype(self) -> JsonDtype:
        """The dtype ``json``."""
        return JsonDtype()

    @property
    def nbytes(self) -> int:
        """Bytes of the texts."""
        return int(self._texts.nbytes)

    @classmethod
    def _from_sequence(cls, scalars: Iterable[object], *, dtype: object = None, copy: bool = False) -> Self:
        if isinstance(scalars, JsonArray):
            return cls(scalars._texts)
        return cls(pa.array([json_text_of(value) for value in scalars], type=pa.large_string()))

    def _cast_pointwise_result(self, values: Any) -> Any:
        # What a function returned for each element is what it is, not JSON.
        return pd.Series(list(values)).array

    @classmethod
    def _from_factorized(cls, values: Sequence[object], original: JsonArray) -> Self:
        return cls._from_sequence(values)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[JsonArray]) -> Self:
        chunks = [chunk for array in to_concat for chunk in array._texts.chunks]
        return cls(pa.chunked_array(chunks, type=pa.large_string()))

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, item: Any) -> Any:
        """Return the value at a position, or an array of those that a slice, mask or list picks."""
        item = pd.api.indexers.check_array_indexer(self, item)
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"{item} is outside of {len(self)} rows")
            return json_value(self._texts[int(item)].as_py())
        if isinstance(item, slice):
            return self.take(np.arange(len(self))[item]) if item.step else type(self)(self._texts[item])
        chosen = np.flatnonzero(item) if item.dtype == bool else item
        return self.take(chosen)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replace elements."""
        values = np.array(self, dtype="object")
        if isinstance(key, (int, np.integer)) or not isinstance(value, (list, JsonArray)):
            values[key] = value
        else:
            values[key] = np.array(self._from_sequence(value), dtype="object")
        self._texts = self._from_sequence(values)._texts

    def __iter__(self) -> Any:
        return map(json_value, self._texts.to_pylist())

    def __eq__(self, other: object) -> Any:
        values = np.array(self, dtype="object")
        others = list(other) if isinstance(other, (JsonArray, list, np.ndarray)) else [other] * len(self)
        return np.array([a is not None and a == b for a, b in zip(values, others, strict=True)], dtype="bool")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the values as a NumPy array of objects."""
        found = np.empty(len(self), dtype="object")
        for number, value in enumerate(self):
            found[number] = value
        return found

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.ChunkedArray:
        """Return the texts, as `DataFrame.to_parquet` asks."""
        return self._texts if type is None else self._texts.cast(type)

    def isna(self) -> Any:
        """Return which elements are missing."""
        return self._texts.is_null().to_numpy()

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> Self:
        """Return the elements at ``indices``; -1 stands for a missing one when ``allow_fill``."""
        positions = take(np.arange(len(self)), indices, allow_fill=allow_fill, fill_value=-1)
        wanted = pa.array(positions, mask=np.asarray(positions) < 0, type=pa.int64())
        return type(self)(self._texts.take(wanted))

    def copy(self) -> Self:
        """Return an array of its own; the texts themselves never change."""
        return type(self)(self._texts)

    def _formatter(self, boxed: bool = False) -> Any:
        return lambda value: "" if value is None else str(value)

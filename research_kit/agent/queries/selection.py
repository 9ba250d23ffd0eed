"""Some rows of one DataFrame, as SQL.

Owns which columns a statement gets, under which names, and the values that are bound to it. Invariant: a
statement consists of this package's own text, names given here, and numbered parameters; no text of a model
or of the data is part of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from research_kit.agent.queries.answers import QueryError, listed, near_names
from research_kit.agent.queries.columns import Column, clean_text
from research_kit.agent.queries.frames import column_names

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from research_kit.agent.queries.calls import QueryCall

__all__ = ["TABLE", "Run", "Selection"]

Run = Callable[[str], list[list[Any]]]

TABLE = "frame"
_LARGEST_INTEGER = 2**127 - 1


def _find_column(frame: pd.DataFrame, name: str | None) -> Column:
    """Return a column by its name as text.

    Raises:
        QueryError: When there is none of that name; the message names similar ones.
    """
    names = column_names(frame)
    if name is None:
        raise QueryError(f"a column is needed. Columns: {listed(names)}.")
    if name in names:
        position = names.index(name)
        return Column(frame.iloc[:, position], name)
    near = near_names(name, names)
    raise QueryError(
        f"there is no column {listed([name])}. {'Did you mean' if near else 'Columns:'} "
        f"{listed(near or names)}."
    )


class Selection:
    """The rows of ``frame`` for which the conditions given to `keep` hold."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.conditions: list[str] = []
        self._columns: dict[str, Column] = {}
        self._arrays: dict[tuple[str, str], pa.Array | pa.ChunkedArray] = {}
        self._parameters: list[Any] = []

    def column(self, name: str | None) -> Column:
        """Return a column by its name; the same object each time."""
        if name not in self._columns:
            self._columns[name or ""] = _find_column(self.frame, name)
        return self._columns[name or ""]

    def values(self, column: Column) -> str:
        """Hand over a column as its values, and return its name in SQL."""
        return self._given(column, "values", lambda: column.values.array)

    def texts(self, column: Column) -> str:
        """Hand over a column as text, and return its name in SQL."""
        return self._given(column, "texts", lambda: column.texts)

    def comparable(self, column: Column) -> str:
        """Hand over a column as its values, points and spans of time in nanoseconds."""
        sql = self.values(column)
        factor = column.nanoseconds if column.kind in ("time", "span") else 1
        return sql if factor == 1 else f"(CAST({sql} AS HUGEINT) * {factor})"

    def natural(self, column: Column) -> str:
        """Hand over a column in DuckDB's own type, and return its name in SQL."""
        return self._given(column, "natural", lambda: column.natural)

    def parameter(self, value: str | float | bool) -> str:
        """Bind a value, and return what stands for it in SQL."""
        if isinstance(value, str):
            value = clean_text(value)
        elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise QueryError(f"the number {str(value)[:20]}... is too large.")
        self._parameters.append(value)
        return f"${len(self._parameters)}"

    def keep(self, condition: str) -> None:
        """Select only rows for which ``condition`` holds, too."""
        self.conditions.append(condition)

    def where(self, *more: str, until: int | None = None) -> str:
        """Return the WHERE of all conditions, or of the first ones, and of ``more``."""
        conditions = [*self.conditions[:until], *more]
        return f" WHERE {' AND '.join(f'({condition})' for condition in conditions)}" if conditions else ""

    @property
    def numbered(self) -> str:
        """The table with the number of each row as ``position``."""
        return f"(SELECT *, row_number() OVER () - 1 AS position FROM {TABLE})"

    @property
    def is_asked(self) -> bool:
        """True when a statement needs any column."""
        return bool(self._arrays)

    @contextlib.contextmanager
    def running(self, call: QueryCall) -> Iterator[Run]:
        """Hand over the columns that the statements made so far need, and give what runs these statements."""
        import pyarrow as pa

        table = pa.table({f"c{number}": array for number, array in enumerate(self._arrays.values())})
        with call.session() as session:
            session.load(TABLE, table)
            yield lambda sql: session.run(sql, self._bound_in(sql))

    def _bound_in(self, sql: str) -> dict[str, Any]:
        return {number: self._parameters[int(number) - 1] for number in re.findall(r"\$(\d+)", sql)}

    def _given(self, column: Column, form: str, make: Callable[[], pa.Array | pa.ChunkedArray]) -> str:
        key = (column.name, form)
        if key not in self._arrays:
            self._arrays[key] = make()
        return f"c{list(self._arrays).index(key)}"

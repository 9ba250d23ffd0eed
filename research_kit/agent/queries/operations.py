"""Statistics on one DataFrame, asked for in typed terms.

Owns the operations, the statement that each becomes, and how results are worded. Invariant: a query is data,
never code, and the frame is only read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from research_kit.agent.queries.answers import QueryAnswer, QueryError, json_value, plain, show
from research_kit.agent.queries.calls import QueryCall
from research_kit.agent.queries.columns import Column
from research_kit.agent.queries.conditions import Condition
from research_kit.agent.queries.filters import Selected, explained, select_rows
from research_kit.agent.queries.frames import column_names, is_number, plain_frame
from research_kit.agent.queries.selection import TABLE, Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Operation", "frame_query"]

Operation = Literal[
    "count", "mean", "median", "sum", "min", "max", "std", "nunique", "value_counts", "count_missing", "rows"
]

_NUMERIC_OPERATIONS = frozenset({"mean", "median", "sum", "std"})
_MAX_GROUPS = 30
_MAX_ROWS = 10
_MAX_COLUMNS = 60


def frame_query(
    frame: pd.DataFrame,
    operation: Operation,
    *,
    column: str | None = None,
    where: list[Condition] | None = None,
    group_by: str | None = None,
    query: str | None = None,
    call: QueryCall | None = None,
) -> QueryAnswer:
    """Compute ``operation`` on ``frame``.

    Args:
        frame: The table; not changed.
        operation: ``count`` counts rows, ``rows`` returns the first ones, the others need a column.
        column: The column to compute on.
        where: Only rows for which all conditions hold are used.
        group_by: Compute for each value of this column.
        query: Only rows for which this expression holds are used; columns and values only.
        call: Limits of the computation, and the way to cancel it.

    Raises:
        QueryError: When a column does not exist, has the wrong type, or is missing.
    """
    with explained():
        selected = select_rows(plain_frame(frame), where or [], query)
        answer = _Answer(selected, operation, call or QueryCall())
        if operation == "rows":
            return answer.first_rows()
        if operation == "count" and group_by is None:
            return answer.row_count()
        if operation in ("count", "value_counts"):
            return answer.value_counts(group_by if operation == "count" else column)
        if operation == "count_missing":
            return answer.missing_count(column)
        return answer.one_value(column) if group_by is None else answer.grouped(column, group_by)


class _Answer:
    """The answers to one operation on some rows."""

    def __init__(self, selected: Selected, operation: Operation, call: QueryCall) -> None:
        self._selected = selected
        self._rows = selected.rows
        self._about = selected.about
        self._operation = operation
        self._call = call

    def row_count(self) -> QueryAnswer:
        with self._running() as run:
            count = self._selected.count(run)
        structured = {"operation": self._operation, "row_count": count, "value": count}
        return QueryAnswer(text=f"count of rows{self._about}: {count}", structured=structured)

    def missing_count(self, name: str | None) -> QueryAnswer:
        sql = self._rows.values(self._rows.column(name))
        with self._running() as run:
            count = self._selected.count(run)
            [[missing]] = run(f"SELECT count(*) - count({sql}) FROM {TABLE}{self._rows.where()}")
        structured = {"operation": self._operation, "row_count": count, "column": name, "value": missing}
        text = f"rows without a value in {name}{self._about}: {missing} of {count}"
        return QueryAnswer(text=text, structured=structured)

    def one_value(self, name: str | None) -> QueryAnswer:
        column = self._rows.column(name)
        sql = self._rows.values(column)
        statement = f"SELECT {_aggregate(self._operation, column, sql)}, count(*) - count({sql}) FROM {TABLE}"
        with self._running() as run:
            count = self._selected.count(run)
            [[found, missing]] = run(statement + self._rows.where())
        value = _read(self._operation, column, found)
        note = f" ({missing} of {count} rows have no value)" if missing else ""
        base = {"operation": self._operation, "row_count": count, "column": name}
        return QueryAnswer(
            text=f"{self._operation} of {name}{self._about}: {show(value)}{note}",
            structured={**base, "value": value, "missing_count": missing},
        )

    def grouped(self, name: str | None, group_by: str) -> QueryAnswer:
        column, group = self._rows.column(name), self._rows.column(group_by)
        value, key = self._rows.values(column), self._rows.values(group)
        statement = (
            f"SELECT {key}, {_aggregate(self._operation, column, value)}, count(*) OVER () FROM {TABLE}"
            f"{self._rows.where(f'{key} IS NOT NULL')} GROUP BY {key} ORDER BY {key} LIMIT {_MAX_GROUPS}"
        )
        with self._running() as run:
            count, rows = self._selected.count(run), run(statement)
        groups = [
            {"group": show(group.values.read(row[0])), "value": _read(self._operation, column, row[1])}
            for row in rows
        ]
        title = f"{self._operation} of {name} per {group_by}{self._about}"
        base = {"operation": self._operation, "row_count": count, "column": name, "group_by": group_by}
        return _group_answer(title, groups, rows[0][2] if rows else 0, base)

    def value_counts(self, name: str | None) -> QueryAnswer:
        column = self._rows.column(name)
        key = self._rows.values(column)
        # Of equally frequent values the first is first, of categories the one that is before the other.
        order = key if column.kind == "category" else "min(position)"
        statement = (
            f"SELECT {key}, count(*) AS n, count(*) OVER () FROM {self._rows.numbered}"
            f"{self._rows.where(f'{key} IS NOT NULL')} GROUP BY {key}"
            f" ORDER BY n DESC, {order} LIMIT {_MAX_GROUPS}"
        )
        with self._running() as run:
            count, rows = self._selected.count(run), run(statement)
        total = rows[0][2] if rows else 0
        counts = [(row[0], row[1]) for row in rows]
        if column.kind == "category":
            total = len(column.categories)
            counts += _unused(total, counts)
        groups = [{"group": show(column.values.read(value)), "value": found} for value, found in counts]
        base = {"operation": self._operation, "row_count": count, "group_by": name}
        return _group_answer(f"rows per {name}{self._about}", groups, total, base)

    def first_rows(self) -> QueryAnswer:
        statement = (
            f"SELECT position FROM {self._rows.numbered}{self._rows.where()}"
            f" ORDER BY position LIMIT {_MAX_ROWS}"
        )
        with self._running() as run:
            count = self._selected.count(run)
            is_all = not self._rows.conditions
            positions = list(range(min(count, _MAX_ROWS))) if is_all else [row[0] for row in run(statement)]
        # The values themselves never left: only their numbers come back.
        rows = _shown_rows(self._rows.frame.iloc[positions, :_MAX_COLUMNS])
        lines = [", ".join(f"{name}={show(value)}" for name, value in row.items()) for row in rows]
        return QueryAnswer(
            text=f"first {len(rows)} of {count} rows{self._about}:\n" + "\n".join(lines),
            structured={"operation": self._operation, "row_count": count, "rows": rows},
        )

    @contextlib.contextmanager
    def _running(self) -> Iterator[Run]:
        if not self._rows.is_asked:
            yield _nothing_to_run
            return
        with self._rows.running(self._call) as run:
            yield run


def _nothing_to_run(sql: str) -> list[list[Any]]:
    raise AssertionError(f"a statement without columns: {sql}")


def _aggregate(operation: Operation, column: Column, sql: str) -> str:
    """Return the statistic in SQL.

    Raises:
        QueryError: When the column's values have none.
    """
    if operation in _NUMERIC_OPERATIONS and not is_number(column.series):
        raise QueryError(
            f"the column {column.name!r} holds {column.series.dtype}, not numbers. "
            "Use value_counts or nunique."
        )
    if operation in ("min", "max") and column.kind == "category" and not column.is_ordered:
        raise QueryError(f"the values do not allow it: the categories of {column.name!r} have no order.")
    if operation in ("mean", "sum") and _is_floating(column):
        # These do not lose small values beside large ones.
        return f"favg({sql})" if operation == "mean" else f"coalesce(fsum({sql}), 0)"
    return {
        "max": f"max({sql})",
        "mean": f"avg({sql})",
        "median": f"median(CAST({sql} AS DOUBLE))",
        "min": f"min({sql})",
        "nunique": f"count(DISTINCT {sql})",
        "std": f"stddev_samp(CAST({sql} AS DOUBLE))",
        "sum": f"coalesce(sum({sql}), 0)",
    }[operation]


def _is_floating(column: Column) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(column.values.array.type))


def _read(operation: Operation, column: Column, value: Any) -> Any:
    return column.values.read(value) if operation in ("min", "max") else plain(value)


def _unused(category_count: int, counts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the first categories without rows, as far as there is room for them."""
    used = {code for code, _ in counts}
    room = _MAX_GROUPS - len(counts)
    unused = (code for code in range(category_count) if code not in used)
    return [(code, 0) for code, _ in zip(unused, range(room), strict=False)]


def _group_answer(title: str, groups: list[dict[str, Any]], count: int, base: dict[str, Any]) -> QueryAnswer:
    shown = ", ".join(f"{group['group']} {show(group['value'])}" for group in groups)
    more = f" and {count - len(groups)} more" if count > len(groups) else ""
    return QueryAnswer(text=f"{title}: {shown or 'none'}{more}", structured={**base, "groups": groups})


def _shown_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = column_names(frame)
    return [
        {name: json_value(value) for name, value in zip(names, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]

"""The typed conditions of a query: a column, an operator, a value.

Owns how a value is read for the column that it is compared with, and what is said when no row has it.
"""

from __future__ import annotations

import contextlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from research_kit.agent.queries.answers import QueryError, near_names, show
from research_kit.agent.queries.columns import Column
from research_kit.agent.queries.frames import is_number
from research_kit.agent.queries.moments import moment_ns
from research_kit.agent.queries.selection import TABLE, Run, Selection

__all__ = ["Condition", "ValueCheck", "keep_condition"]

Operator = Literal["==", "!=", "<", "<=", ">", ">="]

_SIGNS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MAX_LISTED = 30
_MAX_KNOWN = 500


class Condition(BaseModel):
    """One condition that rows have to meet."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="Column to compare")
    operator: Operator = Field(default="==", description="How to compare")
    value: str | int | float | bool = Field(description="Value to compare with")

    def __str__(self) -> str:
        return f"{show(self.column)} {self.operator} {show(self.value)}"


def keep_condition(condition: Condition, selection: Selection) -> ValueCheck | None:
    """Select the rows that meet ``condition``; return what to check when none is left.

    Raises:
        QueryError: When there is no such column, or the value does not suit it.
    """
    column = selection.column(condition.column)
    sign, value = _SIGNS[condition.operator], condition.value
    if is_number(column.series) and column.kind == "number":
        _keep(selection, column, sign, _number(value, column.name))
    elif _is_boolean(column):
        _keep(selection, column, sign, str(value).strip().lower() in ("true", "1", "1.0", "yes"))
    elif column.kind == "time" and not column.values.is_coded:
        _keep(selection, column, sign, moment_ns(str(value), column, zone="UTC"))
    else:
        check = ValueCheck(column, str(value), selection) if sign == "=" else None
        selection.keep(f"{selection.texts(column)} {sign} {selection.parameter(str(value))}")
        return check
    return None


class ValueCheck:
    """Whether a text that a condition asks for is there at all."""

    def __init__(self, column: Column, value: str, selection: Selection) -> None:
        self._column = column
        self._value = value
        self._selection = selection
        self._count_before = len(selection.conditions)

    def refuse_unknown(self, run: Run) -> None:
        """Say which texts there are, when rows are left but none with this text.

        Raises:
            QueryError: With the texts that resemble it, or all when they are few.
        """
        selection, texts, before = self._selection, self._selection.texts(self._column), self._count_before
        [[count]] = run(f"SELECT count(*) FROM {TABLE}{selection.where(until=before + 1)}")
        if count:
            return
        known = run(
            f"SELECT {texts} FROM {selection.numbered}{selection.where(f'{texts} IS NOT NULL', until=before)}"
            f" GROUP BY {texts} ORDER BY min(position) LIMIT {_MAX_KNOWN}"
        )
        names = [str(row[0]) for row in known]
        near = near_names(self._value, names)
        if near or 0 < len(names) <= _MAX_LISTED:
            shown = ", ".join(show(name) for name in near or names)
            raise QueryError(
                f"no row has {show(self._value)!r} in {self._column.name!r}. Values there: {shown}."
            )


def _keep(selection: Selection, column: Column, sign: str, value: float) -> None:
    sql = selection.natural(column) if column.kind == "category" else selection.comparable(column)
    condition = f"{sql} {sign} {selection.parameter(value)}"
    # A missing value is unequal to everything, unless it is pandas' NA.
    is_kept = sign == "<>" and not column.has_unknowns
    selection.keep(f"coalesce({condition}, TRUE)" if is_kept else condition)


def _is_boolean(column: Column) -> bool:
    if column.kind == "category":
        return column.natural_kind == "boolean"
    return column.kind == "boolean" and column.series.dtype != object


def _number(value: str | float, column: str) -> float:
    for read in (int, float):
        with contextlib.suppress(ValueError):
            number = read(str(value))
            if number == number:
                return number
    raise QueryError(f"the column {column!r} holds numbers, and {show(value)!r} is none.")

"""Conditions and a filter over one DataFrame.

Owns how they become one selection, and its words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research_kit.agent.queries.answers import QueryError, show
from research_kit.agent.queries.compiler import compile_expression
from research_kit.agent.queries.conditions import Condition, ValueCheck, keep_condition
from research_kit.agent.queries.expression import read_expression
from research_kit.agent.queries.selection import TABLE, Run, Selection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Selected", "explained", "select_rows"]

_MAX_CONDITIONS = 20
_ODD_VALUES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A selection, its conditions in words with a blank before them, and what to check when it is empty."""

    rows: Selection
    about: str
    checks: tuple[ValueCheck, ...]

    def count(self, run: Run) -> int:
        """Return the number of rows.

        Raises:
            QueryError: When there are none because a condition asks for a text that is not there.
        """
        if not self.rows.conditions:
            return len(self.rows.frame)
        [[count]] = run(f"SELECT count(*) FROM {TABLE}{self.rows.where()}")
        if count == 0:
            for check in self.checks:
                check.refuse_unknown(run)
        return int(count)


def select_rows(frame: pd.DataFrame, where: list[Condition], query: str | None) -> Selected:
    """Return the rows for which everything holds.

    Raises:
        QueryError: When a condition does not fit the frame.
    """
    if len(where) > _MAX_CONDITIONS:
        raise QueryError(f"there are {len(where)} conditions, and at most {_MAX_CONDITIONS} are looked at.")
    rows = Selection(frame)
    checks = [keep_condition(condition, rows) for condition in where]
    words = [str(condition) for condition in where]
    if query:
        rows.keep(compile_expression(read_expression(query), rows))
        words.append(query)
    about = f" where {' and '.join(words)}" if words else ""
    return Selected(rows=rows, about=about, checks=tuple(check for check in checks if check is not None))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what pandas and Arrow say of odd values into a `QueryError`: columns may hold anything."""
    try:
        yield
    except QueryError:
        raise
    except _ODD_VALUES as error:
        raise QueryError(
            f"the values do not allow it ({type(error).__name__}: {show(str(error))})."
        ) from error

"""SQL over the DataFrames of the notebook, through DuckDB.

Owns the database that knows nothing but those frames; does not look up variables. Invariant: a statement can
read the frames it names and nothing else: no file, no network, no setting, and it changes nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from research_kit._optional import require
from research_kit.agent.frame_query import QueryAnswer, QueryError, plain, show

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SqlQuery"]

_MAX_ROWS = 50
_TIMEOUT_S = 20.0
_CONFIG = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "memory_limit": "2GB",
    # Else a name in a statement could be any Python variable of this process.
    "python_enable_replacements": "false",
    "temp_directory": "",
    "threads": "2",
}


class SqlQuery:
    """One statement over some frames.

    Args:
        sql: A single SELECT.
        frames: The frames that it may name.

    Raises:
        MissingExtraError: When DuckDB is not installed.
    """

    def __init__(self, sql: str, frames: Mapping[str, pd.DataFrame]) -> None:
        duckdb = require("duckdb", extra="sql", purpose="query DataFrames with SQL")
        self._error: type[Exception] = duckdb.Error
        self._sql = sql
        self._frames = frames
        self._connection: Any = duckdb.connect(":memory:", config=_CONFIG)
        self._connection.execute("SET lock_configuration = true")
        self._has_run_out = False

    def cancel(self) -> None:
        """Stop the statement; from any thread."""
        self._connection.interrupt()

    def run(self, *, timeout_s: float = _TIMEOUT_S) -> QueryAnswer:
        """Return the first rows of the result.

        Raises:
            QueryError: When the statement is no SELECT, cannot be computed, or takes too long.
        """
        timer = threading.Timer(timeout_s, self._run_out)
        timer.daemon = True
        timer.start()
        try:
            return self._answer()
        except self._error as error:
            if self._has_run_out:
                raise QueryError(f"it takes longer than {timeout_s:g} s. Ask for less.") from error
            raise QueryError(f"{error} Tables here: {', '.join(self._frames) or 'none'}.") from error
        finally:
            timer.cancel()
            self._connection.close()

    def _run_out(self) -> None:
        self._has_run_out = True
        self._connection.interrupt()

    def _answer(self) -> QueryAnswer:
        statements = self._connection.extract_statements(self._sql)
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            raise QueryError("only a single SELECT statement is run.")
        for name, frame in self._frames.items():
            # DuckDB looks at the values of each frame it is given.
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self._sql, re.IGNORECASE):
                self._register(name, frame)
        result = self._connection.execute(statements[0])
        names = [str(column[0]) for column in result.description or ()]
        rows = result.fetchmany(_MAX_ROWS + 1)
        return _answer_of(names, rows)

    def _register(self, name: str, frame: pd.DataFrame) -> None:
        # Column names must be strings, and different ones; the copy shares the values.
        columns: list[str] = []
        seen: set[str] = set()
        for column in map(str, frame.columns):
            unique = column if column.lower() not in seen else f"{column}_{len(seen)}"
            seen.add(unique.lower())
            columns.append(unique)
        self._connection.register(name, frame.set_axis(columns, axis="columns").reset_index(drop=True))


def _answer_of(names: list[str], rows: list[tuple[Any, ...]]) -> QueryAnswer:
    shown = [
        {name: _value(value) for name, value in zip(names, row, strict=True)} for row in rows[:_MAX_ROWS]
    ]
    lines = [", ".join(f"{name}={show(value)}" for name, value in row.items()) for row in shown]
    is_cut = len(rows) > _MAX_ROWS
    if is_cut:
        lines.append(f"and more; only the first {_MAX_ROWS} rows are given")
    return QueryAnswer(
        text="\n".join(lines) or "The result has no rows.",
        structured={"columns": names, "rows": shown, "is_truncated": is_cut},
    )


def _value(value: Any) -> Any:
    simple = plain(value)
    return show(simple) if isinstance(simple, str) else simple

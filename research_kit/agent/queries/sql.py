"""SQL over the DataFrames of the notebook, through DuckDB.

Owns which frames and columns a statement gets, and how its result is worded; does not look up variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from research_kit.agent.queries.answers import QueryAnswer, QueryError, json_value, show
from research_kit.agent.queries.calls import QueryCall
from research_kit.agent.queries.columns import Column
from research_kit.agent.queries.filters import explained
from research_kit.agent.queries.frames import column_names, plain_frame

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["sql_query"]

_MAX_CHARACTERS = 20_000
_MAX_ROWS = 50
_MAX_COLUMNS = 60


def sql_query(sql: str, frames: Mapping[str, pd.DataFrame], *, call: QueryCall | None = None) -> QueryAnswer:
    """Return the first rows of the result of one SELECT.

    Args:
        sql: A single SELECT.
        frames: The frames that it may name; it gets those, and the columns, that it does name.
        call: Limits of the computation, and the way to cancel it.

    Raises:
        QueryError: When the statement is no SELECT, cannot be computed, or uses more than the limits.
    """
    if len(sql) > _MAX_CHARACTERS:
        raise QueryError(f"the statement has more than {_MAX_CHARACTERS} characters.")
    with explained(), (call or QueryCall()).session() as session:
        try:
            names = _Names(session.parse(sql))
            for name, frame in frames.items():
                if names.has_table(name, frames):
                    session.load(name, _table(plain_frame(frame), names))
            result = session.run_named(sql, {}, row_count=_MAX_ROWS + 1)
        except QueryError as error:
            raise QueryError(_with_tables(str(error), frames)) from error
    return _answer_of(result["columns"], result["rows"])


class _Names:
    """What a statement names, as DuckDB's own parser sees it."""

    def __init__(self, tree: dict[str, Any]) -> None:
        nodes = list(_nodes(tree))
        self._strings = {text.lower() for node in nodes for text in _strings(node)}
        self._exact = {text for node in nodes for text in _strings(node)}
        self.wants_all = any(map(_takes_all, nodes)) or self._takes_rows(nodes)

    def has_table(self, name: str, frames: Mapping[str, Any]) -> bool:
        """Return True when the frame is named; of names that differ in case only, the one written so."""
        rivals = [other for other in frames if other.lower() == name.lower() and other in self._exact]
        return name.lower() in self._strings and (not rivals or name == rivals[0])

    def has_column(self, name: str) -> bool:
        """Return True when a column may be needed."""
        return self.wants_all or name.lower() in self._strings

    def _takes_rows(self, nodes: list[dict[str, Any]]) -> bool:
        """Return True when a table is named as if it was a column: its whole rows."""
        tables = {
            str(node.get(key, "")).lower()
            for node in nodes
            if node.get("type") in ("BASE_TABLE", "SUBQUERY", "TABLE_FUNCTION")
            for key in ("alias", "table_name")
        }
        columns = (node["column_names"] for node in nodes if "column_names" in node)
        return any(len(path) == 1 and str(path[0]).lower() in tables for path in columns)


def _takes_all(node: dict[str, Any]) -> bool:
    return (
        node.get("class") == "STAR"
        or node.get("ref_type") in ("NATURAL", "POSITIONAL")
        or node.get("type") in ("PIVOT", "SHOW_REF")
        or node.get("function_name") in ("query", "query_table")
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _strings(node: dict[str, Any]) -> Iterator[str]:
    for value in node.values():
        yield from [value] if isinstance(value, str) else []
        yield from (part for part in value if isinstance(part, str)) if isinstance(value, list) else ()


def _table(frame: pd.DataFrame, names: _Names) -> pa.Table:
    """Return the columns that are named, under different names: SQL does not tell upper from lower case."""
    import pyarrow as pa

    arrays: dict[str, pa.Array | pa.ChunkedArray] = {}
    seen: set[str] = set()
    for position, name in enumerate(column_names(frame)):
        unique = name if name.lower() not in seen else f"{name}_{len(seen)}"
        seen.add(unique.lower())
        if names.has_column(unique):
            arrays[unique] = Column(frame.iloc[:, position], name).natural
    if not arrays:
        # Rows can be counted without any column.
        arrays["rows"] = pa.nulls(len(frame))
    return pa.table(arrays)


def _with_tables(message: str, frames: Mapping[str, Any]) -> str:
    if "does not exist" in message or "not found" in message:
        return f"{message} Tables here: {', '.join(frames) or 'none'}."
    return message


def _answer_of(names: list[str], rows: list[list[Any]]) -> QueryAnswer:
    columns = _different(names[:_MAX_COLUMNS])
    shown = [dict(zip(columns, map(json_value, row), strict=False)) for row in rows[:_MAX_ROWS]]
    lines = [", ".join(f"{name}={show(value)}" for name, value in row.items()) for row in shown]
    is_cut = len(rows) > _MAX_ROWS or len(names) > _MAX_COLUMNS
    if len(rows) > _MAX_ROWS:
        lines.append(f"and more; only the first {_MAX_ROWS} rows are given")
    if len(names) > _MAX_COLUMNS:
        lines.append(f"of {len(names)} columns the first {_MAX_COLUMNS} are given")
    return QueryAnswer(
        text="\n".join(lines) or "The result has no rows.",
        structured={"columns": columns, "rows": shown, "is_truncated": is_cut},
    )


def _different(names: list[str]) -> list[str]:
    """Return the names, with numbers where one occurs again."""
    found: dict[str, None] = {}
    for name in names:
        unique, number = name, 1
        while unique in found:
            unique, number = f"{name}_{number}", number + 1
        found[unique] = None
    return list(found)

"""What is in a DataFrame, in words.

Owns the summary of a table and of its columns, which pandas computes: nothing that a model wrote is part of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research_kit.agent.queries.answers import plain, show
from research_kit.agent.queries.frames import column_names, is_number, plain_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_frame"]

_MAX_COLUMNS = 60
_MAX_CATEGORIES = 50
_MAX_SHOWN = 8
_SAMPLE_ROWS = 100_000


def describe_frame(name: str, frame: pd.DataFrame) -> tuple[str, dict[str, Any]]:
    """Describe ``frame`` in words and as JSON; both stay small for wide and long tables."""
    import numpy as np

    frame = plain_frame(frame)
    names = column_names(frame)
    # Infinity has no mean, which numpy would say in the user's cell.
    with np.errstate(all="ignore"):
        columns = [
            _describe_column(frame.iloc[:, position], names[position])
            for position in range(min(len(names), _MAX_COLUMNS))
        ]
    lines = [f"{name}: DataFrame, {frame.shape[0]} rows x {frame.shape[1]} columns"]
    lines += [f"- {column['name']}: {column['summary']}" for column in columns]
    if len(names) > _MAX_COLUMNS:
        lines.append(f"and {len(names) - _MAX_COLUMNS} more columns")
    structured = {"name": name, "type": "DataFrame", "row_count": frame.shape[0], "columns": columns}
    return "\n".join(lines), structured


def _describe_column(series: pd.Series, name: str) -> dict[str, Any]:
    missing = int(series.isna().sum())
    entry: dict[str, Any] = {"name": name, "dtype": str(series.dtype), "missing_count": missing}
    if is_number(series):
        entry["kind"] = "number"
        entry["summary"] = (
            f"number ({series.dtype}), min {show(plain(series.min()))}, mean {show(plain(series.mean()))}, "
            f"max {show(plain(series.max()))}"
        )
    else:
        values = _categories(series)
        entry["kind"] = "category" if values is not None else "other"
        entry["values"] = values
        shown = ", ".join(show(value) for value in (values or [])[:_MAX_SHOWN])
        more = ", ..." if values is not None and len(values) > _MAX_SHOWN else ""
        entry["summary"] = f"{series.dtype}" + (f", {len(values)} values: {shown}{more}" if values else "")
    if missing:
        entry["summary"] += f", {missing} missing"
    return entry


def _categories(series: pd.Series) -> list[str] | None:
    """Return the texts or booleans that occur, None when there are too many or they are something else."""
    import numpy as np

    values = set()
    for value in series.head(_SAMPLE_ROWS).dropna():
        # Exactly these: a class made from them may hash and compare in ways of its own.
        if type(value) not in (str, bool, np.bool_, np.str_):
            return None
        values.add(value)
        if len(values) > _MAX_CATEGORIES:
            return None
    return sorted(str(value) for value in values)

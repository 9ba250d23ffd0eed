"""What counts, for frames of observations.

Owns the way from the columns of a frame to `research_kit.counting`, which has the rules; groups nothing.
Invariant: the frame that comes in is not changed, and the result has its index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from research_kit.counting import Counted, Facts, count, parent_places, tool_name

__all__ = ["count_once", "name_tools", "parent_positions"]

_NUMBERS = {"cost_usd": "float64", "input_tokens": "Int64", "output_tokens": "Int64", "total_tokens": "Int64"}
_FLAGS = ("is_call", "is_unpriced", "is_tool_call", "is_error")


def count_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what each observation contributes to a sum, with the index of ``frame``.

    ``cost_usd`` and the tokens are NA where it contributes nothing: where it repeats what is inside it, or
    has nothing beyond its parts. ``is_call`` marks LM calls, ``is_unpriced`` those whose cost is in no sum,
    ``is_tool_call`` tools that are not the other side of a tool call around them, and ``is_error`` where
    errors arose. The rule is in docs/counting.md.

    Args:
        frame: Complete traces, one row per observation.
    """
    counted = _counted(frame, parent_positions(frame))
    columns: dict[str, Any] = {
        name: pd.array(list(values), dtype=dtype)  # type: ignore[call-overload]
        for (name, dtype), values in zip(_NUMBERS.items(), _turned(counted)[:4], strict=True)
    }
    flags = zip(_FLAGS, _turned(counted)[4:], strict=True)
    columns.update({name: pd.array(list(values), dtype="bool") for name, values in flags})
    return pd.DataFrame(columns, index=frame.index)


def name_tools(frame: pd.DataFrame) -> list[str | None]:
    """Return for each observation the name of the tool call that it is or happened in; None without one."""
    parents = parent_positions(frame)
    is_tool_call = [one.is_tool_call for one in _counted(frame, parents)]
    names = frame["name"].tolist()
    around = (_first_upwards(row, parents, is_tool_call.__getitem__) for row in range(len(frame)))
    return [None if tool is None else tool_name(names[tool] or "") for tool in around]


def parent_positions(frame: pd.DataFrame) -> list[int]:
    """Return for each row the position of its parent's row, -1 without one."""
    traces = frame["trace_id"].tolist()
    ids = list(zip(traces, frame["observation_id"].tolist(), strict=True))
    parents = frame["parent_observation_id"].fillna("").tolist()
    return parent_places(ids, list(zip(traces, parents, strict=True)))


def _counted(frame: pd.DataFrame, parents: Sequence[int]) -> list[Counted]:
    columns = [
        *(frame[name].fillna("").tolist() for name in ("type", "name")),
        *(_values(frame, name) for name in _NUMBERS),
    ]
    errors = frame["is_error"].fillna(False).tolist() if "is_error" in frame.columns else [False] * len(frame)
    return count(list(map(Facts, *columns, errors)), parents)


def _values(frame: pd.DataFrame, name: str) -> list[Any]:
    if name not in frame.columns:
        return [None] * len(frame)
    is_missing = frame[name].isna().tolist()
    return [
        None if missing else value for value, missing in zip(frame[name].tolist(), is_missing, strict=True)
    ]


def _turned(counted: Sequence[Counted]) -> list[tuple[Any, ...]]:
    return list(zip(*counted, strict=True)) or [()] * len(Counted._fields)


def _first_upwards(row: int, parents: Sequence[int], is_wanted: Callable[[int], bool]) -> int | None:
    while row >= 0 and not is_wanted(row):
        row = parents[row]
    return row if row >= 0 else None

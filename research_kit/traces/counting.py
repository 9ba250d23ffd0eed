"""What counts once: costs, tokens and calls in a tree of observations.

A wrapper often repeats what it wraps: an agent carries the cost of its LM calls, a framework's generation
holds the provider's, a tool call consists of a client span and a server span. Owns the rules that keep sums
right; groups nothing. Invariant: of observations inside one another, only the innermost that carries a value
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

__all__ = ["count_once", "is_innermost", "name_tools", "parent_positions"]

_CALL_TYPES = ("GENERATION", "EMBEDDING")
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")
_TOOL = "TOOL"
_PLAIN = "SPAN"


def count_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what each observation contributes to a sum, with the index of ``frame``.

    ``cost_usd``, ``input_tokens``, ``output_tokens`` and ``total_tokens`` are NA where an observation inside
    carries the value. ``is_call`` marks generations and embeddings without another one inside,
    ``is_unpriced`` those calls for which nothing inside or around them carries a cost either, and
    ``is_tool_call`` tools that are not a part of another tool call.

    Args:
        frame: Complete traces, one row per observation.
    """
    parents = parent_positions(frame)
    has_cost, has_tokens = frame["cost_usd"].notna().tolist(), frame["total_tokens"].notna().tolist()
    is_lm = frame["type"].isin(_CALL_TYPES).tolist()
    is_call = np.array(is_lm, dtype="bool") & ~_has_inside(is_lm, parents)
    costs_inside = _has_inside(has_cost, parents)
    costs_around = [
        _first_upwards(row, parents, has_cost.__getitem__) is not None for row in range(len(frame))
    ]
    tokens_inside = _has_inside(has_tokens, parents)
    columns = {
        "cost_usd": frame["cost_usd"].mask(costs_inside),
        **{name: frame[name].mask(tokens_inside) for name in _TOKENS},
        "is_call": is_call,
        "is_unpriced": is_call & ~costs_inside & ~np.array(costs_around, dtype="bool"),
        "is_tool_call": _is_tool_call(frame, parents),
    }
    return pd.DataFrame(columns, index=frame.index)


def name_tools(frame: pd.DataFrame) -> list[str | None]:
    """Return for each observation the name of the tool call that it is or happened in; None without one."""
    parents = parent_positions(frame)
    is_tool_call = _is_tool_call(frame, parents).tolist()
    names = frame["name"].tolist()
    around = (_first_upwards(row, parents, is_tool_call.__getitem__) for row in range(len(frame)))
    return [None if tool is None else names[tool] for tool in around]


def is_innermost(frame: pd.DataFrame, flags: pd.Series[bool]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows have the flag while no row inside them has it."""
    marked = flags.tolist()
    return np.array(marked, dtype="bool") & ~_has_inside(marked, parent_positions(frame))


def parent_positions(frame: pd.DataFrame) -> list[int]:
    """Return for each row the position of its parent's row, -1 without one."""
    traces = frame["trace_id"].tolist()
    rows = {key: row for row, key in enumerate(zip(traces, frame["observation_id"].tolist(), strict=True))}
    parents = frame["parent_observation_id"].fillna("").tolist()
    return _without_circles([rows.get(key, -1) for key in zip(traces, parents, strict=True)])


def _without_circles(parents: list[int]) -> list[int]:
    """Cut the last step of parents that lead back to where they began, as a broken client may send them."""
    done = [False] * len(parents)
    for start in range(len(parents)):
        path: dict[int, None] = {}
        row = start
        while row >= 0 and not done[row] and row not in path:
            path[row] = None
            row = parents[row]
        if row in path:
            parents[next(reversed(path))] = -1
        for passed in path:
            done[passed] = True
    return parents


def _has_inside(flags: Sequence[bool], parents: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each row whether a row inside it has the flag."""
    found = [False] * len(parents)
    for row, flag in enumerate(flags):
        above = parents[row] if flag else -1
        while above >= 0 and not found[above]:
            found[above] = True
            above = parents[above]
    return np.array(found, dtype="bool")


def _is_tool_call(frame: pd.DataFrame, parents: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Flag tools that no other tool encloses directly or through plain spans, as MCP's client spans are."""
    types = frame["type"].fillna("").tolist()
    is_kind = [kind != _PLAIN for kind in types]
    flags = []
    for row, kind in enumerate(types):
        around = _first_upwards(parents[row], parents, is_kind.__getitem__) if kind == _TOOL else None
        flags.append(kind == _TOOL and (around is None or types[around] != _TOOL))
    return np.array(flags, dtype="bool")


def _first_upwards(row: int, parents: Sequence[int], is_wanted: Callable[[int], bool]) -> int | None:
    while row >= 0 and not is_wanted(row):
        row = parents[row]
    return row if row >= 0 else None

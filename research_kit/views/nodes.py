"""The rows of an observations frame as a tree.

Owns the order in which a trace is shown; makes no text. Invariant: every observation of the frame is in
exactly one tree, also when parents are missing or lead in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from research_kit.traces.analysis import require_columns
from research_kit.traces.counting import count_once

__all__ = ["NEEDS", "Node", "TraceTree", "trace_trees"]

NEEDS = (
    "observation_id", "trace_id", "session_id", "user_id", "parent_observation_id", "type", "name",
    "trace_name", "start_time", "end_time", "latency_s", "time_to_first_token_s", "model", "input_tokens",
    "output_tokens", "total_tokens", "cost_usd", "level", "status_message", "is_error", "is_root",
    "execution_count", "input", "output", "metadata",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One observation, as views show it.

    Attributes:
        depth: Steps from the top of its tree.
        offset_s: Seconds from the start of its trace.
        length_s: Seconds from start to end; None while unknown.
        values: All other columns of its row; missing ones are None.
        is_tool_call: Whether it is a tool call and no part of another one.
        is_call: Whether it is one LM call.
        is_error: Whether an error arose in it, and did not only pass through.
    """

    depth: int
    offset_s: float
    length_s: float | None
    values: dict[str, Any]
    is_tool_call: bool
    is_call: bool
    is_error: bool

    @property
    def kind(self) -> str:
        """Its type in small letters."""
        return str(self.values["type"] or "span").lower()

    @property
    def name(self) -> str:
        """Its name."""
        return self.values["name"] or "(no name)"

    @property
    def has_failed(self) -> bool:
        """Whether it is an error."""
        return bool(self.values["is_error"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTree:
    """One trace: its observations from the top down, and the sums over them.

    Attributes:
        nodes: Parents before children, siblings by start.
        duration_s: Seconds from its first start to its last end.
        unpriced_count: LM calls of unknown cost.
    """

    trace_id: str
    nodes: tuple[Node, ...]
    start_time: pd.Timestamp
    duration_s: float
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    unpriced_count: int

    @property
    def root(self) -> Node:
        """Its first root, or its first observation."""
        return next((node for node in self.nodes if node.values["is_root"]), self.nodes[0])

    @property
    def name(self) -> str:
        """What it is called."""
        return self.root.values["trace_name"] or self.root.name

    @property
    def end_time(self) -> pd.Timestamp:
        """When its last observation ended."""
        return self.start_time + pd.Timedelta(seconds=self.duration_s)

    @property
    def error_count(self) -> int:
        """Errors, where they arose."""
        return sum(node.is_error for node in self.nodes)

    @property
    def call_count(self) -> int:
        """LM calls."""
        return sum(node.is_call for node in self.nodes)


def trace_trees(frame: pd.DataFrame, purpose: str) -> list[TraceTree]:
    """Return the traces of a frame of observations, ordered by start.

    Raises:
        ConfigError: When the frame lacks a column.
    """
    require_columns(frame, NEEDS, purpose)
    ordered = frame[list(NEEDS)].sort_values("start_time", kind="stable", ignore_index=True)
    counted = count_once(ordered)
    columns = [_plain(ordered[name]) for name in NEEDS]
    own = [_plain(counted[name]) for name in _Own._fields]
    traces: dict[str, list[_Row]] = {}
    for values, numbers in zip(zip(*columns, strict=True), zip(*own, strict=True), strict=True):
        row = _Row(dict(zip(NEEDS, values, strict=True)), _Own(*numbers))
        traces.setdefault(str(row.values["trace_id"]), []).append(row)
    return [_tree(trace_id, rows) for trace_id, rows in traces.items()]


class _Own(NamedTuple):
    """What an observation contributes by itself, as `count_once` says."""

    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    is_unpriced: bool
    is_tool_call: bool
    is_call: bool
    is_error: bool


class _Row(NamedTuple):
    values: dict[str, Any]
    own: _Own


def _tree(trace_id: str, rows: list[_Row]) -> TraceTree:
    start = rows[0].values["start_time"]
    ends = [row.values["end_time"] or row.values["start_time"] for row in rows]
    into, out = (_sum(row.own[place] for row in rows) for place in (0, 1))
    return TraceTree(
        trace_id=trace_id,
        nodes=tuple(_nodes(rows, start)),
        start_time=start,
        duration_s=(max(ends) - start).total_seconds(),
        input_tokens=None if into is None else int(into),
        output_tokens=None if out is None else int(out),
        cost_usd=_sum(row.own.cost_usd for row in rows),
        unpriced_count=sum(row.own.is_unpriced for row in rows),
    )


def _nodes(rows: list[_Row], start: pd.Timestamp) -> Iterator[Node]:
    for depth, place in _from_the_top([row.values for row in rows]):
        values, own = rows[place]
        begin, end = values["start_time"], values["end_time"]
        yield Node(
            depth=depth,
            offset_s=(begin - start).total_seconds(),
            length_s=values["latency_s"] if end is None else (end - begin).total_seconds(),
            values=values,
            is_tool_call=bool(own.is_tool_call),
            is_call=bool(own.is_call),
            is_error=bool(own.is_error),
        )


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column; missing ones are None."""
    is_missing = column.isna().tolist()
    return [None if missing else value for value, missing in zip(column.tolist(), is_missing, strict=True)]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _from_the_top(values: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield depth and place, parents before children; one whose parent is not there is at the top."""
    ids = [row["observation_id"] for row in values]
    there = set(ids)
    children: dict[str | None, list[int]] = {}
    for place, row in enumerate(values):
        parent = row["parent_observation_id"]
        is_inside = parent in there and parent != row["observation_id"]
        children.setdefault(parent if is_inside else None, []).append(place)
    waiting = [(0, place) for place in reversed(children.pop(None, []))]
    while waiting or children:
        if not waiting:  # only a circle of parents is left; it begins somewhere
            waiting = [(0, place) for place in reversed(children.pop(next(iter(children))))]
        depth, place = waiting.pop()
        yield depth, place
        waiting += [(depth + 1, child) for child in reversed(children.pop(ids[place], []))]

"""Where the time of a trace went.

Owns self time and the critical path; reads nothing. Invariant: functions are pure; no second is counted for
two observations, so critical seconds never add up to more than the trace took.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import CRITICAL_PATH
from research_kit.traces.analysis.grouping import build_rows, require_columns
from research_kit.traces.counting import parent_positions

__all__ = ["critical_path"]

_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name", "depth",
    "start_time", "end_time", "latency_s",
)  # fmt: skip
_OUTSIDE = -1

_Ns = np.ndarray[tuple[int], np.dtype[np.int64]]


def critical_path(frame: pd.DataFrame, trace_id: str | None = None) -> pd.DataFrame:
    """Return one row per observation of a trace, ordered by start, with its own and its critical time.

    ``self_s`` is the time of an observation minus the union of the times of those directly inside it.
    The critical path is what the trace waited for: from its end backwards, of the observations inside the
    current one the one that ended last, then the last one that ended before that one began, and so on; inside
    each of them likewise. What lies between is the observation's own. ``critical_s`` of all observations add
    up to the time that the trace took, less pauses in which nothing ran. Making an observation faster makes
    the trace faster only as far as it is on the path. Method: Zhang et al., CRISP, USENIX ATC 2022.
    Source: `observations_df`; the server keeps milliseconds.

    Args:
        frame: One row per observation, with all of the trace.
        trace_id: The trace; may be left out when the frame holds one only.

    Raises:
        ConfigError: When the frame lacks a column, has no such trace, or has several and none is named.
    """
    require_columns(frame, _NEEDS, "critical_path")
    trace = _one_trace(frame, trace_id).sort_values("start_time", kind="stable")
    starts, ends = _ns(trace["start_time"]), _ns(trace["end_time"].fillna(trace["start_time"]))
    ends = np.maximum(starts, ends)
    inside = _inside(parent_positions(trace))
    critical_ns, is_critical = _walk(starts, ends, inside)
    total_s = float(np.max(ends) - np.min(starts)) / 1e9 if len(trace) else 0.0
    return build_rows(
        CRITICAL_PATH,
        trace.assign(
            self_s=[_self_ns(row, starts, ends, inside[row]) / 1e9 for row in range(len(trace))],
            critical_s=critical_ns / 1e9,
            critical_share=critical_ns / 1e9 / total_s if total_s else float("nan"),
            is_critical=is_critical,
        ),
    )


def _one_trace(frame: pd.DataFrame, trace_id: str | None) -> pd.DataFrame:
    traces = frame["trace_id"].dropna().unique()
    if trace_id is None and len(traces) > 1:
        raise ConfigError(
            f"The frame holds {len(traces):,} traces, and a critical path is that of one. Name it: "
            f"critical_path(frame, {traces[0]!r})."
        )
    if trace_id is not None and trace_id not in traces:
        raise ConfigError(
            f"The frame has no trace {trace_id!r}; it holds {len(traces):,} others. Read it with "
            "observations_df(trace_id=...)."
        )
    return frame if trace_id is None else frame[frame["trace_id"] == trace_id]


def _ns(times: pd.Series[pd.Timestamp]) -> _Ns:
    return np.asarray(times.dt.as_unit("ns").astype("int64"), dtype=np.int64)


def _inside(parents: Sequence[int]) -> defaultdict[int, list[int]]:
    """Return the rows directly inside each row; those without a parent are inside ``_OUTSIDE``."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for row, parent in enumerate(parents):
        found[parent].append(row)
    return found


def _self_ns(row: int, starts: _Ns, ends: _Ns, inside: Sequence[int]) -> int:
    """Return the time of ``row`` that no interval inside covers."""
    own_ns, covered_until = int(ends[row] - starts[row]), int(starts[row])
    for child in sorted(inside, key=lambda each: int(starts[each])):
        begin, end = max(int(starts[child]), covered_until), min(int(ends[child]), int(ends[row]))
        if end > begin:
            own_ns -= end - begin
            covered_until = end
    return own_ns


def _walk(starts: _Ns, ends: _Ns, inside: defaultdict[int, list[int]]) -> tuple[_Ns, list[bool]]:
    """Return how long each row was waited for itself, and whether it is on the path."""
    firsts, lasts = _with_inside(starts, ends, inside)
    waited, is_critical = np.zeros(len(starts), dtype=np.int64), [False] * len(starts)
    pending = [_OUTSIDE]
    while pending:
        row = pending.pop()
        begin = int(firsts[row]) if row >= 0 else int(np.min(firsts, initial=0))
        until = int(lasts[row]) if row >= 0 else int(np.max(lasts, initial=0))
        # Of those that end together the longest, which the others are a part of.
        for child in sorted(inside[row], key=lambda each: (-int(lasts[each]), int(firsts[each]))):
            if lasts[child] <= until:
                _wait(waited, row, int(lasts[child]), until, starts, ends)
                until, is_critical[child] = int(firsts[child]), True
                pending.append(child)
        _wait(waited, row, begin, until, starts, ends)
    return waited, is_critical


def _wait(waited: _Ns, row: int, begin: int, end: int, starts: _Ns, ends: _Ns) -> None:
    """Add to ``row`` the part of a pause in which it ran itself."""
    if row != _OUTSIDE:
        waited[row] += max(0, min(end, int(ends[row])) - max(begin, int(starts[row])))


def _with_inside(starts: _Ns, ends: _Ns, inside: defaultdict[int, list[int]]) -> tuple[_Ns, _Ns]:
    """Return begin and end of each row with all that is inside it, which may outlast it."""
    firsts, lasts = starts.copy(), ends.copy()
    order = list(inside[_OUTSIDE])
    for row in order:  # grows while it is read: parents come before what is inside them
        order.extend(inside[row])
    for row in reversed(order):
        for child in inside[row]:
            firsts[row] = min(firsts[row], firsts[child])
            lasts[row] = max(lasts[row], lasts[child])
    return firsts, lasts

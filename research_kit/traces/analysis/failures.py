"""What failed, and how often.

Owns which errors are one kind, and which of nested errors counts; reads nothing. Invariant: functions are
pure, and an error that a whole chain of observations repeats is one error.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from research_kit.traces.analysis.columns import ERRORS
from research_kit.traces.analysis.grouping import (
    build_result,
    group_rows,
    key_names,
    read_keys,
    require_columns,
    with_groups,
)
from research_kit.traces.counting import count_once

__all__ = ["error_summary"]

_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name", "start_time", "is_error", "error",
)  # fmt: skip
# Hexadecimal ids and addresses first, so that their digits do not make many of one.
_VARIABLE = r"0x[0-9a-fA-F]+|\b(?=[0-9a-fA-F-]*\d)[0-9a-fA-F]{8}[0-9a-fA-F-]*\b|\d+(?:[.,:]\d+)*"


def error_summary(frame: pd.DataFrame, by: str | Sequence[str] | None = "name") -> pd.DataFrame:
    """Return one row per group and kind of error, most frequent first; groups without errors are left out.

    An error that rises through the observations around it counts once, where it came from: at observations
    with level ``ERROR`` in which no other one has it. Errors are of one kind when the first lines of their
    messages are the same but for numbers and ids. ``error_rate`` is ``error_count`` by all observations of
    the group. Source: `observations_df` (complete traces); the message is the observation's status message.

    Args:
        frame: One row per observation, as from `observations_df`.
        by: One or several of the groups of `cost_by`; None for one group over everything.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
    """
    keys = read_keys(by) if by is not None else []
    require_columns(frame, _NEEDS, "error_summary")
    values = frame[["trace_id", "observation_id", "start_time"]].rename(
        columns={"trace_id": "error_trace_id", "observation_id": "error_observation_id", "start_time": "time"}
    )
    values = values.assign(error=kind_of_error(frame["error"]), is_counted=count_once(frame)["is_error"])
    rows = with_groups(values, frame, keys, "error_summary").sort_values("time", kind="stable")
    names = key_names(keys)
    kinds = rows[rows["is_counted"]].groupby([*names, "error"], dropna=False, sort=True)
    found = kinds.agg(
        error_count=("time", "size"),
        trace_count=("error_trace_id", "nunique"),
        first_time=("time", "min"),
        last_time=("time", "max"),
        example_observation_id=("error_observation_id", "last"),
    ).reset_index()
    totals = group_rows(rows, keys).size().rename("observation_count")
    found = found.merge(totals, on=names, how="left") if keys else found.assign(observation_count=len(rows))
    found["error_rate"] = found["error_count"] / found["observation_count"]
    return build_result(keys, ERRORS, found.sort_values("error_count", ascending=False, kind="stable"))


def kind_of_error(messages: pd.Series[str]) -> pd.Series[str]:
    """Return the first line of each message, with ``#`` for numbers and ids."""
    first_lines = messages.astype("string").str.split("\n", n=1).str[0].str.strip()
    return first_lines.str.replace(_VARIABLE, "#", regex=True).astype("string")

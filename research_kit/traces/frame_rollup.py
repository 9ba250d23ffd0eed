"""Frames of messages, cells, traces and sessions from observations that are at hand.

Owns the way without a server, for what was exported and read back. Invariant: the rows are those that the
functions which read a server give for the same observations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.analysis import require_columns
from research_kit.traces.rollup import roll_up_cells, roll_up_messages, roll_up_sessions, roll_up_traces
from research_kit.traces.schema import OBSERVATIONS
from research_kit.traces.scoring import with_scores

__all__ = ["roll_up"]


class _Way(NamedTuple):
    make: Callable[[pd.DataFrame], pd.DataFrame]
    subject: str


_WAYS: Mapping[str, _Way] = {
    "messages": _Way(roll_up_messages, "trace"),
    "cells": _Way(roll_up_cells, "trace"),
    "traces": _Way(roll_up_traces, "trace"),
    "sessions": _Way(roll_up_sessions, "session"),
}


def roll_up(frame: pd.DataFrame, to: str = "traces", *, scores: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row per message, cell, trace or session of a frame of observations, without a server.

    Args:
        frame: Complete traces, as from `observations_df` or `read_export`.
        to: ``messages``, ``cells``, ``traces`` or ``sessions``: the rows and columns of the function
            ``<to>_df``.
        scores: A frame of `scores_df`; adds a column ``score_<name>`` for each score of the rows.

    Raises:
        ConfigError: When ``to`` is another word, or the frame lacks a column.
    """
    if to not in _WAYS:
        raise ConfigError(f"Cannot roll up to {to!r}. Use one of: {', '.join(_WAYS)}.")
    require_columns(frame, [column.name for column in OBSERVATIONS], "roll_up")
    rows = _WAYS[to].make(frame.sort_values("start_time", kind="stable", ignore_index=True))
    return rows if scores is None else with_scores(rows, scores, _WAYS[to].subject)

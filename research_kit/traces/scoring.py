"""Scores beside what they judge.

Owns the columns ``score_<name>``; reads nothing. Invariant: no row is added or removed, and a score counts
for its
own subject only: that of an observation is not that of its trace.
"""

from __future__ import annotations

import pandas as pd

__all__ = ["with_scores"]


def with_scores(frame: pd.DataFrame, scores: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Return ``frame`` with a column for each score name.

    Args:
        frame: Rows with the column ``<subject>_id``.
        scores: A frame of `scores_df`.
        subject: ``session``, ``trace`` or ``observation``.
    """
    own = scores[scores["subject"] == subject]
    keys = ["trace_id", "observation_id"] if subject == "observation" else [f"{subject}_id"]
    joined = frame
    for name, some in own.groupby("name"):
        groups = some.groupby(keys)
        values = groups["value"].mean() if some["value"].notna().any() else groups["text_value"].last()
        joined = joined.join(values.rename(f"score_{name}"), on=keys)
    return joined

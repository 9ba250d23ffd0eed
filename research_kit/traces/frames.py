"""The frames of observations and of computed rows.

Owns the step from tables to frames, and the columns that depend on other rows; knows no server. Invariant: a
frame has exactly the columns of its schema, in order and with their dtypes, whatever the rows are and also
when there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from research_kit.traces.placing import place
from research_kit.traces.schema import OBSERVATION_SOURCE, OBSERVATIONS, Schema
from research_kit.traces.tables import build_table, to_pandas

__all__ = ["build_frame", "build_observations"]


def build_frame(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per element of ``rows``, with the columns of ``schema``.

    Raises:
        ResearchKitError: When a value does not fit its column.
    """
    return to_pandas(build_table(schema, rows), schema)


def build_observations(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return observations as a server sent them as a frame, ordered by start, with their place in the tree.

    Raises:
        ResearchKitError: When a value does not fit its column.
    """
    return to_pandas(place(build_table(OBSERVATION_SOURCE, rows)), OBSERVATIONS)

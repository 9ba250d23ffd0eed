"""How long things took.

Owns the formulas; reads nothing. Invariant: functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import pandas as pd

from research_kit.traces.analysis.columns import LATENCIES
from research_kit.traces.analysis.engines import Engine, Where, frame_or_none
from research_kit.traces.analysis.grouping import (
    build_result,
    group_rows,
    read_keys,
    require_columns,
    with_groups,
)

__all__ = ["latency_summary"]

_QUANTILES = {
    "latency_p50_s": ("latency_s", 0.5),
    "latency_p90_s": ("latency_s", 0.9),
    "latency_p95_s": ("latency_s", 0.95),
    "latency_p99_s": ("latency_s", 0.99),
    "time_to_first_token_p50_s": ("time_to_first_token_s", 0.5),
    "time_to_first_token_p95_s": ("time_to_first_token_s", 0.95),
}


def latency_summary(
    frame: pd.DataFrame | None = None,
    by: str | Sequence[str] | None = None,
    *,
    engine: Engine = "frame",
    **where: Unpack[Where],
) -> pd.DataFrame:
    """Return percentiles of latency and time to first token, and tokens per second; one row per group.

    All in seconds. Percentiles interpolate linearly between the neighbours of rank ``p * (n - 1)``; rows
    without a value are left out of that value. ``output_tokens_per_s`` is the sum of output tokens by the sum
    of ``latency_s`` over rows that have both. Pick the rows before: the latency of an agent contains that of
    its calls. Source: `observations_df`, `generations_df`, `traces_df` or `messages_df`.

    ``engine="server"`` has the metrics API compute the same percentiles without a download; ``type`` picks
    the rows. It counts durations of 0 ms, which frames do not know, and gives no ``output_tokens_per_s``.

    Args:
        frame: Any frame with a column ``latency_s``; values whose columns it lacks are NA. None with
            ``engine="server"``.
        by: None for one row over everything, else one or several of the groups of `cost_by`.
        engine: ``"frame"`` or ``"server"``.
        **where: `Where`, with ``engine="server"``: ``session_id``, ``start_time``, ``end_time``, ``type``,
            ``reader``.

    Raises:
        ConfigError: When an argument cannot be used, or the frame lacks a column.
        BackendError: When the server cannot be read.
    """
    keys = read_keys(by) if by is not None else []
    given = frame_or_none(frame, engine, where, "latency_summary")
    if given is None:
        from research_kit.traces.analysis.server import latency_on_server

        return build_result(keys, LATENCIES, latency_on_server(keys, where))
    require_columns(given, ("latency_s",), "latency_summary")
    measured = with_groups(_measured(given), given, keys, "latency_summary")
    groups = group_rows(measured[measured["latency_s"].notna()], keys)
    summary = pd.DataFrame({"count": groups.size(), "latency_mean_s": groups["latency_s"].mean()})
    for name, (column, share) in _QUANTILES.items():
        summary[name] = groups[column].quantile(share)
    seconds = groups["token_time_s"].sum(min_count=1)
    summary["output_tokens_per_s"] = groups["tokens"].sum(min_count=1) / seconds
    return build_result(keys, LATENCIES, summary.reset_index())


def _measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers that `latency_summary` uses; those that the frame lacks are missing values."""
    missing = pd.Series(float("nan"), index=frame.index)
    tokens = frame.get("output_tokens", missing).astype("float64")
    has_rate = tokens.notna() & (frame["latency_s"] > 0)
    return pd.DataFrame(
        {
            "latency_s": frame["latency_s"],
            "time_to_first_token_s": frame.get("time_to_first_token_s", missing),
            "tokens": tokens.where(has_rate),
            "token_time_s": frame["latency_s"].where(has_rate),
        }
    )

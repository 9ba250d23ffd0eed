"""How tools were used.

Owns the formulas; reads nothing. Invariant: functions are pure, and the parts that one call is made of, such
as both sides of an MCP call, count once.
"""

from __future__ import annotations

import pandas as pd

from research_kit.counting import tool_name
from research_kit.traces.analysis.columns import TOOLS
from research_kit.traces.analysis.grouping import build_rows, require_columns
from research_kit.traces.counting import count_once, name_tools

__all__ = ["tool_summary"]

_NEEDS = ("trace_id", "observation_id", "parent_observation_id", "name", "is_error", "latency_s")
_PERCENTILES = {"latency_p50_s": 0.5, "latency_p95_s": 0.95}


def tool_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per tool, most called first: calls, errors, latency in seconds, and cost.

    ``error_rate`` is ``error_count`` by ``call_count``. Percentiles are those of `latency_summary`. The cost
    is that of the tool itself and of the LM calls inside it; a tool inside another counts for the inner one.
    Source: `observations_df` (complete traces), or `tool_calls_df`, which knows no costs.

    Args:
        frame: One row per observation, or per tool call.

    Raises:
        ConfigError: When the frame lacks a column.
    """
    require_columns(frame, _NEEDS, "tool_summary")
    has_all = {"type", "cost_usd", "input_tokens", "output_tokens", "total_tokens"} <= set(frame.columns)
    calls = _calls(frame) if has_all else frame.assign(tool_name=frame["name"])
    groups = calls.groupby("tool_name", dropna=False, sort=True)
    found = groups["latency_s"].agg(latency_sum_s=lambda latencies: latencies.sum(min_count=1))
    found["call_count"] = groups.size()
    found["error_count"] = groups["is_error"].sum()
    found["error_rate"] = found["error_count"].astype("float64") / found["call_count"]
    found["trace_count"] = groups["trace_id"].nunique()
    for name, share in _PERCENTILES.items():
        found[name] = groups["latency_s"].quantile(share)
    found["cost_usd"] = _costs(frame).reindex(found.index) if has_all else float("nan")
    ordered = found.reset_index().sort_values("call_count", ascending=False, kind="stable")
    return build_rows(TOOLS, ordered)


def _calls(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(tool_name=frame["name"].map(tool_name))[count_once(frame)["is_tool_call"]]


def _costs(frame: pd.DataFrame) -> pd.Series[float]:
    tools = pd.Series(name_tools(frame), index=frame.index, dtype="string")
    return count_once(frame)["cost_usd"].groupby(tools).sum(min_count=1)

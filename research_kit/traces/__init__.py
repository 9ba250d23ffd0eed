"""The read path: what a Langfuse server or the embedded store has recorded, as DataFrames."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research_kit.traces import aio
    from research_kit.traces.analysis import (
        anomalies,
        cache_savings,
        compare,
        cost_by,
        critical_path,
        error_summary,
        forecast_cost,
        latency_summary,
        tool_summary,
    )
    from research_kit.traces.cache import TraceCache
    from research_kit.traces.frame_rollup import roll_up
    from research_kit.traces.plots import plot_comparison, plot_cost, plot_latency, plot_timeline, plot_tokens
    from research_kit.traces.query import ObservationQuery
    from research_kit.traces.reader import TraceReader
    from research_kit.traces.reads import (
        ALL_SESSIONS,
        cells_df,
        generations_df,
        iter_tables,
        messages_df,
        observations_df,
        scores_df,
        sessions_df,
        tool_calls_df,
        traces_df,
        wait_for,
    )

__all__ = [
    "ALL_SESSIONS",
    "ObservationQuery",
    "TraceCache",
    "TraceReader",
    "aio",
    "anomalies",
    "cache_savings",
    "cells_df",
    "compare",
    "cost_by",
    "critical_path",
    "error_summary",
    "forecast_cost",
    "generations_df",
    "iter_tables",
    "latency_summary",
    "messages_df",
    "observations_df",
    "plot_comparison",
    "plot_cost",
    "plot_latency",
    "plot_timeline",
    "plot_tokens",
    "roll_up",
    "scores_df",
    "sessions_df",
    "tool_calls_df",
    "tool_summary",
    "traces_df",
    "wait_for",
]

_HOMES = {
    "ObservationQuery": "query",
    "TraceCache": "cache",
    "TraceReader": "reader",
    "anomalies": "analysis",
    "cache_savings": "analysis",
    "compare": "analysis",
    "cost_by": "analysis",
    "critical_path": "analysis",
    "error_summary": "analysis",
    "forecast_cost": "analysis",
    "latency_summary": "analysis",
    "plot_comparison": "plots",
    "plot_cost": "plots",
    "plot_latency": "plots",
    "plot_timeline": "plots",
    "plot_tokens": "plots",
    "roll_up": "frame_rollup",
    "tool_summary": "analysis",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "aio":
        return import_module(f"{__name__}.aio")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'reads')}"), name)

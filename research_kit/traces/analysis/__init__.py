"""What frames tell: costs, latencies, errors, tools, comparisons, outliers and a forecast."""

from research_kit.traces.analysis.columns import RESULTS
from research_kit.traces.analysis.comparing import compare
from research_kit.traces.analysis.costs import cache_savings, cost_by
from research_kit.traces.analysis.critical import critical_path
from research_kit.traces.analysis.failures import error_summary
from research_kit.traces.analysis.forecasting import forecast_cost
from research_kit.traces.analysis.grouping import group_values, require_columns
from research_kit.traces.analysis.latency import latency_summary
from research_kit.traces.analysis.outliers import anomalies
from research_kit.traces.analysis.tools import tool_summary

__all__ = [
    "RESULTS",
    "anomalies",
    "cache_savings",
    "compare",
    "cost_by",
    "critical_path",
    "error_summary",
    "forecast_cost",
    "group_values",
    "latency_summary",
    "require_columns",
    "tool_summary",
]

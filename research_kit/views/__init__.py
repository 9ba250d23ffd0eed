"""Traces to look at and to hand on: trace tree, session replay, comparison, costs, export."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_kit.views.comparison import ComparisonView, show_comparison
    from research_kit.views.cost import CostReport, measure_cost, session_cost
    from research_kit.views.exporting import export, read_export
    from research_kit.views.session_replay import SessionReplay, replay
    from research_kit.views.trace_view import TraceView, show

_HOMES = {
    "ComparisonView": "comparison",
    "CostReport": "cost",
    "SessionReplay": "session_replay",
    "TraceView": "trace_view",
    "export": "exporting",
    "measure_cost": "cost",
    "read_export": "exporting",
    "replay": "session_replay",
    "session_cost": "cost",
    "show": "trace_view",
    "show_comparison": "comparison",
}

__all__ = [
    "ComparisonView",
    "CostReport",
    "SessionReplay",
    "TraceView",
    "export",
    "measure_cost",
    "read_export",
    "replay",
    "session_cost",
    "show",
    "show_comparison",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

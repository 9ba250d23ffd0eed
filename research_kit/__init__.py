"""research-kit: observed research sessions in Jupyter.

Every name resolves on first use, so that ``import research_kit`` loads nothing heavy.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_kit.agent import resolve_lm
    from research_kit.agent.papers import papers
    from research_kit.agent.reports import lm, tools
    from research_kit.chat import Conversation, budget, chat
    from research_kit.errors import ResearchKitError
    from research_kit.instrumentation import instrument, uninstrument
    from research_kit.ipython import load_ipython_extension, unload_ipython_extension
    from research_kit.regression import compare_runs, expect, replaying, run_notebook, runs_df
    from research_kit.session import (
        bind,
        clear_session,
        current_session_id,
        current_user_id,
        flush,
        langfuse_manager,
        new_session,
        resume,
        score,
        set_session,
        set_user,
        trace_span,
        unbind,
    )
    from research_kit.session.kernel import status  # in the room's face, mypy takes it for the module
    from research_kit.traces import (
        ALL_SESSIONS,
        TraceReader,
        aio,
        anomalies,
        cache_savings,
        cells_df,
        compare,
        cost_by,
        critical_path,
        error_summary,
        forecast_cost,
        generations_df,
        iter_tables,
        latency_summary,
        messages_df,
        observations_df,
        plot_comparison,
        plot_cost,
        plot_latency,
        plot_timeline,
        plot_tokens,
        roll_up,
        scores_df,
        sessions_df,
        tool_calls_df,
        tool_summary,
        traces_df,
        wait_for,
    )
    from research_kit.transfer import pull, push
    from research_kit.views import (
        export,
        measure_cost,
        read_export,
        replay,
        session_cost,
        show,
        show_comparison,
    )

_HOMES = {
    "ALL_SESSIONS": "traces",
    "Conversation": "chat",
    "ResearchKitError": "errors",
    "TraceReader": "traces",
    "aio": "traces",
    "anomalies": "traces",
    "bind": "session",
    "budget": "chat",
    "cache_savings": "traces",
    "cells_df": "traces",
    "chat": "chat",
    "clear_session": "session",
    "compare": "traces",
    "compare_runs": "regression",
    "cost_by": "traces",
    "critical_path": "traces",
    "current_session_id": "session",
    "current_user_id": "session",
    "error_summary": "traces",
    "expect": "regression",
    "export": "views",
    "flush": "session",
    "forecast_cost": "traces",
    "generations_df": "traces",
    "instrument": "instrumentation",
    "iter_tables": "traces",
    "langfuse_manager": "session",
    "latency_summary": "traces",
    "lm": "agent.reports",
    "load_ipython_extension": "ipython",
    "measure_cost": "views",
    "messages_df": "traces",
    "new_session": "session",
    "observations_df": "traces",
    "papers": "agent.papers",
    "plot_comparison": "traces",
    "plot_cost": "traces",
    "plot_latency": "traces",
    "plot_timeline": "traces",
    "plot_tokens": "traces",
    "pull": "transfer",
    "push": "transfer",
    "read_export": "views",
    "replay": "views",
    "replaying": "regression",
    "resolve_lm": "agent",
    "resume": "session",
    "roll_up": "traces",
    "run_notebook": "regression",
    "runs_df": "regression",
    "score": "session",
    "scores_df": "traces",
    "session_cost": "views",
    "sessions_df": "traces",
    "set_session": "session",
    "set_user": "session",
    "show": "views",
    "show_comparison": "views",
    "status": "session",
    "tool_calls_df": "traces",
    "tool_summary": "traces",
    "tools": "agent.reports",
    "trace_span": "session",
    "traces_df": "traces",
    "unbind": "session",
    "uninstrument": "instrumentation",
    "unload_ipython_extension": "ipython",
    "wait_for": "traces",
}

__all__ = [
    "ALL_SESSIONS",
    "Conversation",
    "ResearchKitError",
    "TraceReader",
    "aio",
    "anomalies",
    "bind",
    "budget",
    "cache_savings",
    "cells_df",
    "chat",
    "clear_session",
    "compare",
    "compare_runs",
    "cost_by",
    "critical_path",
    "current_session_id",
    "current_user_id",
    "error_summary",
    "expect",
    "export",
    "flush",
    "forecast_cost",
    "generations_df",
    "instrument",
    "iter_tables",
    "langfuse_manager",
    "latency_summary",
    "lm",
    "load_ipython_extension",
    "measure_cost",
    "messages_df",
    "new_session",
    "observations_df",
    "papers",
    "plot_comparison",
    "plot_cost",
    "plot_latency",
    "plot_timeline",
    "plot_tokens",
    "pull",
    "push",
    "read_export",
    "replay",
    "replaying",
    "resolve_lm",
    "resume",
    "roll_up",
    "run_notebook",
    "runs_df",
    "score",
    "scores_df",
    "session_cost",
    "sessions_df",
    "set_session",
    "set_user",
    "show",
    "show_comparison",
    "status",
    "tool_calls_df",
    "tool_summary",
    "tools",
    "trace_span",
    "traces_df",
    "unbind",
    "uninstrument",
    "unload_ipython_extension",
    "wait_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept, so that the next use is a plain attribute.
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__


# A spawned child of a process with a session joins it here: what its code then calls may be Langfuse alone.
if "_RESEARCH_KIT_PARENT" in os.environ:
    import_module(f"{__name__}.session")

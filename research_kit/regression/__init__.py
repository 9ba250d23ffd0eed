"""Notebooks as regression tests: plan, run, compare, and the pytest plugin on top."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research_kit.regression.baseline import Expectation, find_expectation, write_baseline
    from research_kit.regression.check import Check, check_notebook
    from research_kit.regression.compare import Difference, compare_notebooks
    from research_kit.regression.expectations import Expectations, UnmetExpectationError
    from research_kit.regression.expecting import expect
    from research_kit.regression.history import compare_runs, runs_df
    from research_kit.regression.plan import NotebookPlan, Plan, find_plan, load_plan
    from research_kit.regression.player import CassetteMissError, Player, replaying
    from research_kit.regression.repeats import Repeats, repeat_check
    from research_kit.regression.report_text import format_check
    from research_kit.regression.run import RunResult, run_notebook
    from research_kit.regression.sanitize import DEFAULT_SANITIZERS, Sanitizer
    from research_kit.regression.trace_facts import TraceFacts

__all__ = [
    "DEFAULT_SANITIZERS",
    "CassetteMissError",
    "Check",
    "Difference",
    "Expectation",
    "Expectations",
    "NotebookPlan",
    "Plan",
    "Player",
    "Repeats",
    "RunResult",
    "Sanitizer",
    "TraceFacts",
    "UnmetExpectationError",
    "check_notebook",
    "compare_notebooks",
    "compare_runs",
    "expect",
    "find_expectation",
    "find_plan",
    "format_check",
    "load_plan",
    "repeat_check",
    "replaying",
    "run_notebook",
    "runs_df",
    "write_baseline",
]

# papermill, nbval and nbformat are heavy, and the pytest plugin is loaded in every pytest run of its users.
_MODULE_OF = {
    "CassetteMissError": "player",
    "Check": "check",
    "DEFAULT_SANITIZERS": "sanitize",
    "Difference": "compare",
    "Expectation": "baseline",
    "Expectations": "expectations",
    "NotebookPlan": "plan",
    "Plan": "plan",
    "Player": "player",
    "Repeats": "repeats",
    "RunResult": "run",
    "Sanitizer": "sanitize",
    "TraceFacts": "trace_facts",
    "UnmetExpectationError": "expectations",
    "check_notebook": "check",
    "compare_notebooks": "compare",
    "compare_runs": "history",
    "expect": "expecting",
    "find_expectation": "baseline",
    "find_plan": "plan",
    "format_check": "report_text",
    "load_plan": "plan",
    "repeat_check": "repeats",
    "replaying": "player",
    "run_notebook": "run",
    "runs_df": "history",
    "write_baseline": "baseline",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

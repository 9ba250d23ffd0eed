"""Notebooks as regression tests: plan, run, compare, and the pytest plugin on top."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research_kit.regression.baseline import Expectation, find_expectation, write_baseline
    from research_kit.regression.check import Check, check_notebook
    from research_kit.regression.compare import Difference, compare_notebooks
    from research_kit.regression.plan import NotebookPlan, Plan, find_plan, load_plan
    from research_kit.regression.report import format_check
    from research_kit.regression.run import RunResult, run_notebook
    from research_kit.regression.sanitize import DEFAULT_SANITIZERS, Sanitizer

__all__ = [
    "DEFAULT_SANITIZERS",
    "Check",
    "Difference",
    "Expectation",
    "NotebookPlan",
    "Plan",
    "RunResult",
    "Sanitizer",
    "check_notebook",
    "compare_notebooks",
    "find_expectation",
    "find_plan",
    "format_check",
    "load_plan",
    "run_notebook",
    "write_baseline",
]

# papermill, nbval and nbformat are heavy, and the pytest plugin is loaded in every pytest run of its users.
_MODULE_OF = {
    "DEFAULT_SANITIZERS": "sanitize",
    "Check": "check",
    "Difference": "compare",
    "Expectation": "baseline",
    "NotebookPlan": "plan",
    "Plan": "plan",
    "RunResult": "run",
    "Sanitizer": "sanitize",
    "check_notebook": "check",
    "compare_notebooks": "compare",
    "find_expectation": "baseline",
    "find_plan": "plan",
    "format_check": "report",
    "load_plan": "plan",
    "run_notebook": "run",
    "write_baseline": "baseline",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

"""One notebook as a test: run it, then compare its outputs or accept them.

Owns the order of the steps and the verdict. Does not know pytest, so that a command line can use it too.
Invariant: a baseline is only written from a run that passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from research_kit.errors import ConfigError
from research_kit.regression.baseline import Expectation, find_expectation, write_baseline
from research_kit.regression.compare import Difference, compare_notebooks
from research_kit.regression.documents import read_notebook
from research_kit.regression.plan import NotebookPlan, Plan
from research_kit.regression.run import RunOptions, RunResult, execute_run
from research_kit.regression.warm_kernels import WarmKernels

__all__ = ["Check", "check_notebook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The verdict on one notebook.

    Attributes:
        planned: What was asked for.
        run: How the execution ended.
        expected_from: ``baseline``, ``own outputs`` or ``none`` (only errors were looked for).
        expected_path: Where the expectation was read from; None when there was none.
        differences: Outputs that are not as expected; empty when the run itself did not pass.
        accepted_path: The baseline that this check has written; None when it wrote none.
    """

    planned: NotebookPlan
    run: RunResult
    expected_from: str
    expected_path: Path | None
    differences: tuple[Difference, ...]
    accepted_path: Path | None

    @property
    def is_passed(self) -> bool:
        """Whether the notebook ran to its end and its outputs are as expected."""
        return self.run.outcome == "passed" and not self.differences


def check_notebook(
    planned: NotebookPlan,
    plan: Plan,
    *,
    output_dir: Path | None = None,
    accept: bool = False,
    warm_kernels: WarmKernels | None = None,
) -> Check:
    """Run one notebook of ``plan`` and compare its outputs with the expected ones.

    Args:
        planned: The notebook and its parameters.
        plan: Limits and sanitizers.
        output_dir: Where the executed copy goes instead of ``plan.output_dir``.
        accept: Write the outputs as the new baseline instead of comparing them.
        warm_kernels: Where to take the kernel from; None starts one.

    Raises:
        ConfigError: When the baseline cannot be read or written, or the run cannot be set up.
    """
    folder = output_dir if output_dir is not None else _default_output_dir(plan)
    options = RunOptions(
        parameters=planned.parameters,
        cell_timeout_s=plan.cell_timeout_s,
        notebook_timeout_s=plan.notebook_timeout_s,
        warm_kernels=warm_kernels,
    )
    run = execute_run(planned.path, folder / f"{planned.name}.ipynb", options)
    check = Check(
        planned=planned, run=run, expected_from="none", expected_path=None, differences=(), accepted_path=None
    )
    if run.outcome != "passed":
        return check
    executed = read_notebook(run.output_path)
    if accept:
        return replace(check, accepted_path=write_baseline(executed, planned, sanitizers=plan.sanitizers))
    expectation: Expectation = find_expectation(planned)
    check = replace(check, expected_from=expectation.kind, expected_path=expectation.path)
    if expectation.notebook is None:
        return check
    found = compare_notebooks(
        expectation.notebook, executed, sanitizers=plan.sanitizers, tolerance=plan.tolerance
    )
    return replace(check, differences=found)


def _default_output_dir(plan: Plan) -> Path:
    """Make the folder, and keep it out of version control as pytest does with its cache."""
    ignore = plan.output_dir / ".gitignore"
    try:
        plan.output_dir.mkdir(parents=True, exist_ok=True)
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write executed copies to {str(plan.output_dir)!r}: {error.strerror}. "
            "Set output_dir to a folder that you can write."
        ) from error
    return plan.output_dir

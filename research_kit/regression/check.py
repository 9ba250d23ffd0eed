"""One notebook as a test: run it, then compare its outputs and traces, or accept them.

Owns the order of the steps and the verdict. Does not know pytest, so that a command line can use it too.
Invariant: a baseline is only written from a run that passed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from research_kit.errors import ConfigError
from research_kit.regression.baseline import Expectation, find_expectation, write_baseline
from research_kit.regression.compare import Difference, compare_notebooks
from research_kit.regression.documents import read_notebook
from research_kit.regression.notebook_options import ReplayMode
from research_kit.regression.plan import NotebookPlan, Plan
from research_kit.regression.remote import fetch, join_address
from research_kit.regression.run import RunOptions, RunResult, execute_run, send_copy
from research_kit.regression.run_session import order_run
from research_kit.regression.trace_baseline import compare_traces, read_trace_baseline, write_trace_baseline
from research_kit.regression.warm_kernels import WarmKernels
from research_kit.regression.working_folder import working_folder
from research_kit.session.environment_file import PROJECT_NAMES
from research_kit.sources import note_file
from research_kit.trust import is_trusted

__all__ = ["Check", "CheckOptions", "check_notebook", "check_once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The verdict on one notebook.

    Attributes:
        planned: What was asked for.
        run: How the execution ended.
        expected_from: ``baseline``, ``own outputs`` or ``none`` (only errors were looked for).
        expected_path: Where the expectation was read from; None when there was none.
        differences: Outputs that are not as expected; empty when the run itself did not pass.
        trace_problems: What its traces or its cassette say against it, a sentence each.
        accepted_path: The baseline that this check has written; None when it wrote none.
        changed_count: How many outputs accepting has changed.
    """

    planned: NotebookPlan
    run: RunResult
    expected_from: str
    expected_path: Path | None
    differences: tuple[Difference, ...]
    accepted_path: Path | None
    trace_problems: tuple[str, ...] = ()
    changed_count: int = 0

    @property
    def is_passed(self) -> bool:
        """Whether the notebook ran to its end and its outputs and traces are as expected."""
        is_as_expected = self.accepted_path is not None or not self.differences
        return self.run.outcome == "passed" and is_as_expected and not self.trace_problems

    @property
    def verdict(self) -> str:
        """The outcome of the run, or ``differs`` when it passed and is not as expected."""
        return "differs" if self.run.outcome == "passed" and not self.is_passed else self.run.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What the caller of a check decides.

    Attributes:
        output_dir: Where the executed copy goes instead of ``plan.output_dir``.
        accept: Write the outputs and trace numbers as the new baselines.
        record: What is wanted of cassettes; None leaves it to the notebook and the plan.
        is_repeated: Whether this is one of several runs, whose cost and tokens `repeat_check` judges together
            when they come from a live model.
    """

    output_dir: Path | None = None
    accept: bool = False
    record: ReplayMode | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    planned: NotebookPlan
    plan: Plan
    options: CheckOptions


def check_notebook(
    planned: NotebookPlan,
    plan: Plan,
    *,
    output_dir: Path | None = None,
    accept: bool = False,
    record: ReplayMode | None = None,
    warm_kernels: WarmKernels | None = None,
) -> Check:
    """Run one notebook of ``plan`` and compare outputs and traces with the expected ones.

    Args:
        planned: The notebook and its parameters.
        plan: Limits and sanitizers.
        output_dir: Where the executed copy goes instead of ``plan.output_dir``.
        accept: Write the outputs as the new baseline; what changes with it is in the differences.
        record: What is wanted of cassettes; None leaves it to the notebook and the plan.
        warm_kernels: Where to take the kernel from; None starts one.

    Raises:
        ConfigError: When the baseline cannot be read or written, or the run cannot be set up.
    """
    options = CheckOptions(output_dir=output_dir, accept=accept, record=record)
    return check_once(planned, plan, options, warm_kernels)


def check_once(
    planned: NotebookPlan, plan: Plan, options: CheckOptions, warm_kernels: WarmKernels | None = None
) -> Check:
    """Do what `check_notebook` says."""
    case = _Case(planned, plan, options)
    check = Check(
        planned=planned,
        run=_run(case, warm_kernels),
        expected_from="none",
        expected_path=None,
        differences=(),
        accepted_path=None,
    )
    if check.run.outcome != "passed":
        return check
    check = replace(check, trace_problems=tuple(_trace_problems(case, check.run)))
    return _accept(case, check) if options.accept and not check.trace_problems else _compare(case, check)


def _run(case: _Case, warm_kernels: WarmKernels | None) -> RunResult:
    planned, plan, own = case.planned, case.plan, case.planned.options
    folder = case.options.output_dir if case.options.output_dir is not None else _default_output_dir(plan)
    is_temporary = plan.is_cwd_temporary if own.temporary_cwd is None else own.temporary_cwd
    if planned.address and not planned.path.exists():
        fetch(planned.address, plan.root)
    # The folder of a fetched notebook holds nothing that it could read.
    home = plan.root if planned.address and not is_temporary else planned.path.parent
    with working_folder(home, is_temporary=is_temporary) as cwd:
        options = RunOptions(
            parameters=planned.parameters,
            cell_timeout_s=own.cell_timeout_s or plan.cell_timeout_s,
            notebook_timeout_s=own.notebook_timeout_s or plan.notebook_timeout_s,
            environ=_environ(own.environment, plan.root / "pyproject.toml"),
            warm_kernels=warm_kernels,
            order=order_run(planned, plan, case.options.record),
            cwd=cwd,
            memory_limit_mb=own.memory_limit_mb or plan.memory_limit_mb,
        )
        result = execute_run(planned.path, folder / f"{planned.name}.ipynb", options)
    if plan.output_address and case.options.output_dir is None:
        return send_copy(result, join_address(plan.output_address, result.output_path.name))
    return result


def _environ(environment: Mapping[str, str], file: Path) -> dict[str, str] | None:
    """Return the environment of a kernel; None for that of this process."""
    if not environment:
        return None
    own = {
        name: text for name, text in environment.items() if name in PROJECT_NAMES and name not in os.environ
    }
    environ = {
        **os.environ,
        **{name: text for name, text in environment.items() if name not in PROJECT_NAMES},
    }
    if not (file.is_file() and is_trusted(file, file.read_bytes())):
        note_file(environ, str(file), own, ())
    return environ | own


def _trace_problems(case: _Case, run: RunResult) -> Iterator[str]:
    """Yield what speaks against a run whose cells have all passed."""
    replay = run.replay
    if replay is not None:
        # A cell may have caught the error of a call that could not be answered.
        yield from replay.misses
        if replay.unused_count and not replay.misses:
            yield (
                f"{replay.unused_count} recorded call(s) were not made:\n{replay.unused}\n"
                "If that is right, record again: --record all."
            )
    if run.facts is None:
        if not case.planned.expectations.is_empty:
            yield "Its traces could not be checked: the kernel did not say what it had seen."
        return
    yield from case.planned.expectations.find_unmet(run.facts)
    accepted = None if case.options.accept else read_trace_baseline(case.planned.trace_baseline_path)
    if accepted is not None:
        yield from compare_traces(
            accepted,
            run.facts,
            tolerance=case.plan.trace_tolerance,
            is_replayed=run.is_replayed,
            is_repeated=case.options.is_repeated and not run.is_replayed,
        )


def _compare(case: _Case, check: Check) -> Check:
    expectation: Expectation = find_expectation(case.planned)
    check = replace(check, expected_from=expectation.kind, expected_path=expectation.path)
    if expectation.notebook is None:
        return check
    own = case.planned.options.tolerance
    found = compare_notebooks(
        expectation.notebook,
        read_notebook(check.run.output_path),
        sanitizers=case.plan.sanitizers,
        tolerance=case.plan.tolerance if own is None else own,
        image_tolerance=case.plan.image_tolerance,
    )
    return replace(check, differences=found)


def _accept(case: _Case, check: Check) -> Check:
    compared = _compare(case, check)
    planned, facts = case.planned, check.run.facts
    path = write_baseline(
        read_notebook(check.run.output_path),
        planned,
        sanitizers=case.plan.sanitizers,
        keeps_images=case.plan.image_tolerance is not None,
    )
    if facts is not None and facts.observation_count:
        write_trace_baseline(planned.trace_baseline_path, facts)
    return replace(compared, accepted_path=path, changed_count=len(compared.differences))


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

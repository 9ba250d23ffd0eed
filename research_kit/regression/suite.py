"""All notebooks of a plan, run side by side.

Owns the order of the runs, what is run where, and what happens when a worker dies; knows neither pytest nor a
terminal. Invariant: every planned run has one summary, whatever happens to a worker, unless the caller
interrupts.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit.errors import ConfigError
from research_kit.regression.notebook_options import ReplayMode
from research_kit.regression.plan import NotebookPlan, Plan
from research_kit.regression.summary import RunSummary, summarize

if TYPE_CHECKING:
    from research_kit.regression.warm_kernels import WarmKernels

# A cache alone lets two threads that begin together make one each.
_making_kernels = threading.Lock()

__all__ = ["SuiteOptions", "Task", "plan_tasks", "run_suite", "run_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """How a suite is run.

    Attributes:
        output_dir: Where executed copies go instead of the plan's folder.
        accept: Write outputs and trace numbers as the new baselines.
        record: What is wanted of cassettes; None leaves it to notebooks and plan.
        repeat_count: How often each notebook is run.
    """

    output_dir: Path | None = None
    accept: bool = False
    record: ReplayMode | None = None
    repeat_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One notebook and parameter set, as it travels to a worker.

    Attributes:
        planned: What is run.
        plan: Its project, without the other notebooks.
        preload: What kernels import ahead; None starts each kernel by itself.
        options: How it is run.
    """

    planned: NotebookPlan
    plan: Plan
    preload: tuple[str, ...] | None
    options: SuiteOptions


def plan_tasks(plan: Plan, chosen: Iterable[NotebookPlan], options: SuiteOptions) -> list[Task]:
    """Return what is to be done for the ``chosen`` notebooks of ``plan``."""
    from research_kit.regression.warm_kernels import find_imports

    notebooks = list(chosen)
    preload: tuple[str, ...] | None = None
    if plan.is_warm:
        preload = find_imports(one.path for one in notebooks) if plan.preload is None else plan.preload
    alone = replace(plan, notebooks=())
    return [Task(planned=planned, plan=alone, preload=preload, options=options) for planned in notebooks]


def run_suite(
    tasks: Sequence[Task],
    make_executor: Callable[[], Executor],
    *,
    on_end: Callable[[RunSummary], None] = lambda summary: None,
) -> list[RunSummary]:
    """Run ``tasks`` and return their summaries, in the order of ``tasks``.

    Args:
        tasks: What is to be run.
        make_executor: Makes where it is run: any `concurrent.futures.Executor`. It is called again when a
            worker has died and the executor is of no use any more.
        on_end: Called in this thread when a run has ended, in the order of the ends.
    """
    done: dict[int, RunSummary] = {}
    lost: dict[int, BaseException] = {}

    def end(number: int, outcome: RunSummary | BaseException) -> None:
        if isinstance(outcome, RunSummary):
            done[number] = outcome
            on_end(outcome)
        else:
            lost[number] = outcome

    _run_round(make_executor(), tasks, range(len(tasks)), end)
    left = list(lost)
    if left:
        try:
            executor = make_executor()
        except (ConfigError, OSError) as error:  # nobody is left to run them again
            lost = dict.fromkeys(left, error)
        else:
            lost.clear()
            _run_round(executor, tasks, left, end)
    for number, fault in lost.items():
        done[number] = _lost(tasks[number], fault)
        on_end(done[number])
    return [done[number] for number in range(len(tasks))]


def _run_round(
    executor: Executor,
    tasks: Sequence[Task],
    numbers: Sequence[int],
    end: Callable[[int, RunSummary | BaseException], None],
) -> None:
    try:
        for number, outcome in _submit(executor, tasks, numbers):
            end(number, outcome)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _submit(
    executor: Executor, tasks: Sequence[Task], numbers: Sequence[int]
) -> Iterator[tuple[int, RunSummary | BaseException]]:
    """Yield what became of each task; an error is that of the worker, as runs themselves end in a result."""
    waiting: dict[Future[str], int] = {}
    for number in numbers:
        try:
            waiting[executor.submit(run_task, tasks[number])] = number
        except (RuntimeError, OSError) as error:  # a worker died while tasks were handed out
            yield number, error
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            number = waiting.pop(future)
            fault = future.exception()
            yield number, RunSummary.from_json(future.result()) if fault is None else fault


def run_task(task: Task) -> str:
    """Run one task, in whatever process this is; return its summary as JSON."""
    warm_kernels = None if task.preload is None else _kernels_for(task.preload)
    if warm_kernels is not None and task.preload and not task.planned.options.environment:
        # Before the imports that follow, which take seconds, too.
        warm_kernels.start_ahead()
    from research_kit.regression.check import CheckOptions
    from research_kit.regression.history import record_run
    from research_kit.regression.repeats import repeat_check

    options = task.options
    try:
        repeats = repeat_check(
            task.planned,
            task.plan,
            CheckOptions(output_dir=options.output_dir, accept=options.accept, record=options.record),
            count=options.repeat_count,
            warm_kernels=warm_kernels,
        )
    except ConfigError as error:
        return _refused(task, str(error)).to_json()
    for check in repeats.recorded:
        record_run(check, options.output_dir or task.plan.output_dir, task.plan.root)
    return summarize(repeats, task.plan.root).to_json()


def _kernels_for(preload: tuple[str, ...]) -> WarmKernels:
    """Return the fork servers of this process; they end with it."""
    with _making_kernels:
        return _make_kernels(preload)


@lru_cache(maxsize=4)
def _make_kernels(preload: tuple[str, ...]) -> WarmKernels:
    from research_kit.regression.warm_kernels import WarmKernels

    warm_kernels = WarmKernels(preload)
    atexit.register(warm_kernels.close)
    return warm_kernels


def _lost(task: Task, error: BaseException) -> RunSummary:
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    if isinstance(error, ConfigError | OSError):
        return _refused(task, f"its worker died, and there is no other to run it again: {error}")
    return _refused(task, f"its worker died twice ({text}). Give it more memory, or run fewer side by side.")


def _refused(task: Task, message: str) -> RunSummary:
    return RunSummary(
        name=task.planned.name,
        path=task.planned.place(task.plan.root),
        verdict="not_started",
        message=f"not started: {message}",
        problems=(),
        cells=(),
        duration_s=0.0,
        start_time_s=0.0,
        output_path="",
        session_url="",
        parameters="",
        expected_from="none",
        accepted_path="",
        changed_count=0,
        repeats="",
        cost_usd=None,
        total_tokens=None,
        lm_call_count=None,
        tool_call_count=None,
    )

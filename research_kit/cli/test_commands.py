"""The commands ``research-kit test`` and ``research-kit run``.

Parses, prints and writes reports; what a run is lives in `regression`.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit._words import duration_text
from research_kit.cli.printing import print_commands, say
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_text

if TYPE_CHECKING:
    from research_kit.regression.plan import NotebookPlan, Plan
    from research_kit.regression.summary import RunSummary

__all__ = ["add_test_commands"]

_EXECUTORS = ("threads", "processes", "dask", "ipyparallel")


def add_test_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``test`` and ``run`` to the command line."""
    test = commands.add_parser("test", help="run the notebooks of the project as regression tests")
    test.add_argument("notebooks", nargs="*", help="paths, addresses, or names with * (default: all)")
    test.add_argument("--project", type=Path, help="a folder with pyproject.toml (default: the nearest)")
    test.add_argument("--accept", action="store_true", help="write the outputs as the new baselines")
    test.add_argument(
        "--record", choices=["none", "missing", "all", "off"], help="answers of language models and tools"
    )
    test.add_argument("--repeat", type=int, default=1, metavar="N", help="run each notebook N times")
    test.add_argument("--executor", choices=_EXECUTORS, default="threads", help="where notebooks run")
    test.add_argument("--workers", type=int, metavar="N", help="how many side by side (default: the cores)")
    test.add_argument("--address", help="Dask's scheduler, or the profile or connection file of ipyparallel")
    test.add_argument("--last-failed", action="store_true", help="only what failed in the last run")
    test.add_argument("--list", action="store_true", help="list the runs and what is made equal, run nothing")
    test.add_argument("--output-dir", help="folder of the executed copies, or an address to send them to")
    test.add_argument("--html", type=Path, metavar="FILE", help="write one page for people")
    test.add_argument("--junit-xml", type=Path, metavar="FILE", help="write a JUnit report")
    test.add_argument("--markdown", type=Path, metavar="FILE", help="write a summary in Markdown")
    test.set_defaults(run=_test)
    run = commands.add_parser("run", help="execute one notebook and say how it ended")
    # Not paths: "s3://" would lose a slash.
    run.add_argument("notebook", help="a path, or an address such as s3://bucket/a.ipynb")
    run.add_argument("--output", help="where the executed copy goes: a path or an address")
    run.set_defaults(run=_run_notebook)


def _test(options: argparse.Namespace) -> int:
    from research_kit.regression.executors import executor_maker
    from research_kit.regression.plan import find_plan, load_plan, redirect
    from research_kit.regression.suite import SuiteOptions, plan_tasks, run_suite

    start = (options.project or Path.cwd()).absolute()
    pyproject = find_plan(start)
    plan, output_dir = redirect(load_plan(pyproject or start), options.output_dir)
    chosen = _choose(plan, options, output_dir)
    if options.list:
        return _list(plan, chosen)
    suite = SuiteOptions(
        output_dir=output_dir,
        accept=options.accept,
        record=options.record,
        repeat_count=options.repeat,
    )
    tasks = plan_tasks(plan, chosen, suite)
    make = executor_maker(options.executor, worker_count=options.workers, address=options.address)
    started, progress = time.monotonic(), _Progress(len(tasks))
    summaries = _interruptible(lambda: run_suite(tasks, make, on_end=progress.show))
    _write_reports(options, plan, summaries)
    _conclude(summaries, time.monotonic() - started)
    return 0 if all(one.is_passed for one in summaries) else 1


def _interruptible(run: object) -> list[RunSummary]:
    try:
        return run()  # type: ignore[operator,no-any-return]
    except KeyboardInterrupt:
        # Kernels that were forked end with this process; waiting for running notebooks would take minutes.
        say("\nresearch-kit: interrupted; the executed copies show how far they came", file=sys.stderr)
        sys.stdout.flush()
        os._exit(130)


def _choose(plan: Plan, options: argparse.Namespace, output_dir: Path | None) -> list[NotebookPlan]:
    chosen = [one for one in plan.notebooks if _is_named(one, options.notebooks)]
    if options.notebooks and not chosen:
        known = ", ".join(one.name for one in plan.notebooks)
        raise ConfigError(f"{', '.join(options.notebooks)} is no notebook of the plan. It has: {known}.")
    if options.last_failed:
        failed = _last_failed(plan, output_dir)
        chosen = [one for one in chosen if one.name in failed] or chosen
    return chosen


def _is_named(one: NotebookPlan, names: Sequence[str]) -> bool:
    if not names:
        return True
    own = {one.name, one.path.stem, one.path.name}
    return any(
        name == one.address
        or Path(name).absolute() in (one.path, *one.path.parents)
        or any(fnmatch.fnmatchcase(known, name) for known in own)
        for name in names
    )


def _last_failed(plan: Plan, output_dir: Path | None) -> set[str]:
    from research_kit.regression.history import last_outcomes

    outcomes = last_outcomes(output_dir or plan.output_dir)
    return {name for name, outcome in outcomes.items() if outcome != "passed"}


def _list(plan: Plan, chosen: Sequence[NotebookPlan]) -> int:
    for one in chosen:
        baseline = "baseline" if one.baseline_path.exists() else "no baseline"
        cassette = ", cassette" if one.cassette_path.exists() else ""
        place = plain_text(one.place(plan.root))
        say(f"{plain_text(one.name)}  ({place}; {baseline}{cassette})")
    say("\nmade equal before outputs are compared:")
    for sanitizer in plan.sanitizers:
        say(f"  {sanitizer.name}: {plain_text(sanitizer.doc or sanitizer.regex)}")
    return 0


class _Progress:
    """A line per notebook that has ended."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0

    def show(self, one: RunSummary) -> None:
        self._done += 1
        width = len(str(self._count))
        took = duration_text(one.duration_s)
        say(f"[{self._done:{width}}/{self._count}] {one.verdict:11} {one.name}  {took}")


def _conclude(summaries: Sequence[RunSummary], took_s: float) -> None:
    from research_kit.regression.report_files import count_verdicts, github_annotations
    from research_kit.regression.report_text import format_summary

    for one in summaries:
        if not one.is_passed or one.changed_count:
            say(f"\n{'=' * 8} {one.name}: {one.verdict}")
            say(format_summary(one))
        elif one.verdict == "flaky":
            say(f"\n{one.name} is flaky: {one.repeats}")
    unchecked = [one.name for one in summaries if one.expected_from == "none" and one.verdict == "passed"]
    if unchecked:
        say(f"\nno baseline, only errors were looked for: {', '.join(unchecked)} (--accept adds one)")
    say(f"\n{count_verdicts(summaries)} in {duration_text(took_s)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print_commands(github_annotations(summaries))


def _write_reports(options: argparse.Namespace, plan: Plan, summaries: Sequence[RunSummary]) -> None:
    from research_kit.regression.report_files import junit_xml, markdown_summary, write_report
    from research_kit.regression.report_page import report_page
    from research_kit.regression.run_session import git_place

    if options.junit_xml:
        write_report(options.junit_xml, junit_xml(summaries))
    if options.html:
        commit, branch = git_place(plan.root)
        write_report(options.html, report_page(summaries, commit=commit, branch=branch))
    markdown = options.markdown or os.environ.get("GITHUB_STEP_SUMMARY")
    if markdown:
        write_report(Path(markdown), markdown_summary(summaries))


def _run_notebook(options: argparse.Namespace) -> int:
    from research_kit.regression import run_notebook
    from research_kit.regression.remote import fetched_path, is_remote
    from research_kit.regression.report_text import format_message

    notebook: str = options.notebook
    # The copy of a remote notebook is made in the current folder, as it runs there.
    beside = Path(fetched_path(notebook, Path()).name) if is_remote(notebook) else Path(notebook)
    output = options.output or beside.with_suffix(".executed.ipynb")
    result = run_notebook(notebook, output_path=output)
    copy = plain_text(str(result.output_path))
    say(f"{result.outcome} after {duration_text(result.duration_s)}: {copy}")
    if result.sent_to:
        say(f"sent to {plain_text(result.sent_to)}")
    if result.message:
        say(format_message(result.message))
    return 0 if result.outcome == "passed" else 1

"""The pytest plugin: notebooks of the plan as test items.

Owns collection, the options and the reporting inside pytest; running and judging is `check_notebook`.
Invariant: in a project without ``[tool.research_kit.regression]`` the plugin collects nothing, and
importing it loads neither papermill nor nbval nor pandas. What it hands to pytest is plain text, node ids of
files with odd names too: pytest prints it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest._code.code import ReprExceptionInfo, ReprFileLocation, ReprTracebackNative

from research_kit._slow_formats import defer_slow_formats
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_block, plain_text

if TYPE_CHECKING:
    from research_kit.regression.plan import NotebookPlan, Plan
    from research_kit.regression.repeats import Repeats
    from research_kit.regression.warm_kernels import WarmKernels

__all__ = [
    "NotebookFile",
    "NotebookRun",
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_unconfigure",
]

_WARM_KERNELS = pytest.StashKey[dict[Path, "WarmKernels | None"]]()
_PLANS = pytest.StashKey[dict[Path, "Plan | None"]]()
_PLAN_FILE = "pyproject.toml"
_COPY, _EXPECTED, _ACCEPTED = "rk_executed_copy", "rk_expected_from", "rk_accepted"
_FLAKY, _SUMMARY = "rk_flaky", "rk_summary"


class NotebookFailedError(Exception):
    """A notebook did not pass; the only exception whose text pytest shows without a Python traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NotebookFile(pytest.File):
    """One notebook, or the plan with its remote ones; it holds a `NotebookRun` per parameter set."""

    plan: Plan | None = None
    problem: str = ""

    def collect(self) -> Iterable[NotebookRun]:
        """Yield the runs without opening a notebook."""
        if self.plan is None:
            raise self.CollectError(plain_block(self.problem))
        is_plan = self.path.name == _PLAN_FILE
        for planned in self.plan.notebooks:
            if planned.address if is_plan else planned.path.resolve() == self.path.resolve():
                label = planned.path.stem if is_plan else "run"
                name = plain_text(label if planned.set_name is None else f"{label}[{planned.set_name}]")
                run = NotebookRun.from_parent(self, name=name, planned=planned, plan=self.plan)
                for marker in planned.options.markers:
                    run.add_marker(marker)
                yield run


class NotebookRun(pytest.Item):
    """One run of one notebook."""

    def __init__(self, *, planned: NotebookPlan, plan: Plan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned
        self.plan = plan

    def runtest(self) -> None:
        """Run the notebook and fail with a readable text."""
        from research_kit.regression.check import CheckOptions
        from research_kit.regression.history import record_run
        from research_kit.regression.plan import redirect
        from research_kit.regression.repeats import repeat_check
        from research_kit.regression.report_text import format_check, format_message

        plan, output_dir = redirect(self.plan, self.config.getoption("rk_output_dir"))
        options = CheckOptions(
            output_dir=output_dir,
            accept=self.config.getoption("rk_accept"),
            record=self.config.getoption("rk_record"),
        )
        try:
            repeats = repeat_check(
                self.planned,
                plan,
                options,
                count=self.config.getoption("rk_repeat"),
                warm_kernels=_warm_kernels(self.config, plan),
            )
        except ConfigError as error:
            raise NotebookFailedError(format_message(str(error))) from error
        for check in repeats.recorded:
            record_run(check, output_dir or plan.output_dir, plan.root)
        self._remember(repeats)
        if not repeats.is_passed:
            raise NotebookFailedError(format_check(repeats.shown, root=self.config.rootpath))

    def _remember(self, repeats: Repeats) -> None:
        from research_kit.regression.summary import summarize

        # User properties cross from xdist workers to the terminal summary, and stand in the JUnit XML.
        check = repeats.shown
        self.user_properties.append((_COPY, plain_text(str(check.run.output_path))))
        self.user_properties.append((_EXPECTED, check.expected_from))
        if check.accepted_path is not None:
            self.user_properties.append((_ACCEPTED, plain_text(str(check.accepted_path))))
        if repeats.is_flaky:
            self.user_properties.append((_FLAKY, repeats.describe()))
        if self.config.getoption("rk_html") or self.config.getoption("rk_markdown"):
            told = check.run.output_path.with_suffix(".summary.json")
            told.write_text(summarize(repeats, self.plan.root).to_json(), encoding="utf-8")
            # As JSON: a path that is no valid text could not cross from a worker.
            self.user_properties.append((_SUMMARY, json.dumps(str(told))))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show our own text for our own failures, and pytest's representation for everything else."""
        if isinstance(excinfo.value, NotebookFailedError):
            return self._represent(excinfo.value.text)
        excinfo.traceback = excinfo.traceback.cut(path=__file__)
        text = plain_block(str(super().repr_failure(excinfo, style)))
        return self._represent(text, plain_text(excinfo.exconly()))

    def _represent(self, text: str, message: str = "") -> ReprExceptionInfo:
        # The first line alone is the message: on CI pytest repeats the whole message in its summary.
        message = message or text.partition("\n")[0]
        crash = ReprFileLocation(plain_text(str(self.path)), 0, message)
        return ReprExceptionInfo(ReprTracebackNative([f"{text}\n"]), crash)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the notebook and its run in headings."""
        set_name, stem = self.planned.set_name, self.planned.path.stem
        name = stem if set_name is None else f"{stem}[{set_name}]"
        return Path(plain_text(str(self.path))), None, plain_text(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of notebook runs."""
    group = parser.getgroup("research-kit", "notebooks as regression tests")
    group.addoption(
        "--rk-accept",
        action="store_true",
        dest="rk_accept",
        default=False,
        help="write the outputs of the notebooks as their new baselines instead of comparing them",
    )
    group.addoption(
        "--rk-record",
        dest="rk_record",
        default=None,
        choices=["none", "missing", "all", "off"],
        help="answers of language models and tools: none replays them only, missing records what is not "
        "there, all records everything anew, off replays nothing (default: replay the cassettes there are)",
    )
    group.addoption(
        "--rk-repeat",
        dest="rk_repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each notebook N times; one that passes only sometimes is told as flaky, and is not red",
    )
    for name, what in (("html", "one page for people"), ("markdown", "a summary in Markdown")):
        group.addoption(f"--rk-{name}", dest=f"rk_{name}", default=None, metavar="FILE", help=f"write {what}")
    group.addoption(
        "--rk-output-dir",
        dest="rk_output_dir",
        default=None,
        metavar="DIR",
        help="folder of the executed copies, or an address to send them to (default: output_dir of the plan)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the memory of plans that were already read, and of their kernels."""
    config.stash[_PLANS] = {}
    config.stash[_WARM_KERNELS] = {}


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes that kernels were forked from."""
    for warm_kernels in config.stash.get(_WARM_KERNELS, {}).values():
        if warm_kernels is not None:
            warm_kernels.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
    """Collect a notebook when the nearest plan names it, unless another notebook plugin was asked to.

    Remote notebooks have no file in the tree; they are collected where they are named.
    """
    config = parent.config
    is_plan = file_path.name == _PLAN_FILE and _may_name_remote(file_path)
    if not (is_plan or file_path.suffix == ".ipynb") or _is_taken(config):
        return None
    plan, problem = None, ""
    try:
        plan = _find_plan(config, file_path.parent)
        if is_plan and plan is not None:
            plan = _with_remote(plan, file_path)
    except ConfigError as error:
        problem = str(error)
    if not problem and (plan is None or not (is_plan or _names(plan, file_path))):
        return None
    notebook_file: NotebookFile = NotebookFile.from_parent(
        parent, path=file_path, name=plain_text(file_path.name), nodeid=_node_id(config, file_path)
    )
    notebook_file.plan, notebook_file.problem = plan, problem
    return notebook_file


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make plain what was captured while a notebook ran: log messages and warnings of libraries."""
    report = yield
    if isinstance(item, NotebookRun):
        report.sections = [(title, plain_block(text)) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which baselines were written, and which notebooks were only checked for errors."""
    properties = [dict(report.user_properties) for report in terminalreporter.getreports("passed")]
    accepted = [values[_ACCEPTED] for values in properties if _ACCEPTED in values]
    unchecked = [
        values[_COPY] for values in properties if values.get(_EXPECTED) == "none" and _ACCEPTED not in values
    ]
    for report in terminalreporter.getreports("passed"):
        flaky = dict(report.user_properties).get(_FLAKY)
        if flaky:
            terminalreporter.write_line(f"research-kit: flaky: {report.nodeid}: {flaky}")
    _write_reports(terminalreporter)
    if accepted:
        terminalreporter.write_line(
            f"research-kit: {len(accepted)} baseline(s) written: {', '.join(accepted)}"
        )
    if unchecked:
        names = ", ".join(Path(copy).stem for copy in unchecked)
        terminalreporter.write_line(
            f"research-kit: no baseline, only errors were looked for: {names} (--rk-accept adds one)"
        )


def _write_reports(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    html, markdown = config.getoption("rk_html"), config.getoption("rk_markdown")
    if not html and not markdown:
        return
    from research_kit.regression.report_files import markdown_summary, write_report
    from research_kit.regression.report_page import report_page
    from research_kit.regression.summary import RunSummary

    reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("passed")]
    told = [dict(report.user_properties).get(_SUMMARY) for report in reports]
    summaries = [
        RunSummary.from_json(Path(json.loads(path)).read_text(encoding="utf-8")) for path in told if path
    ]
    if html:
        write_report(Path(html), report_page(summaries))
    if markdown:
        write_report(Path(markdown), markdown_summary(summaries))


def _is_taken(config: pytest.Config) -> bool:
    return any(config.getoption(name, False) for name in ("nbval", "nbval_lax", "nbmake"))


def _node_id(config: pytest.Config, path: Path) -> str | None:
    """Return the id of a file with a name that pytest could not print or parse; None leaves it to pytest."""
    is_inside = path.is_relative_to(config.rootpath)
    parts = (path.relative_to(config.rootpath) if is_inside else path).parts
    # Each part by itself, as pytest shows paths from the folder where it was started.
    plain = tuple(plain_text(part).replace("::", r":\:") for part in parts)
    return None if plain == parts else "/".join(plain)


def _may_name_remote(pyproject: Path) -> bool:
    """Whether it is worth reading; many a folder of test data has a pyproject.toml of any kind."""
    text = pyproject.read_text(encoding="utf-8", errors="replace")
    return "research_kit" in text and ":/" in text


def _names(plan: Plan, notebook: Path) -> bool:
    return notebook.resolve() in {planned.path.resolve() for planned in plan.notebooks}


def _with_remote(plan: Plan, pyproject: Path) -> Plan | None:
    """Return the plan with its remote notebooks fetched; None when it has none, or is another file's."""
    from research_kit.regression.plan import load_plan

    is_own = plan.root.resolve() == pyproject.parent.resolve()
    if not is_own or not any(planned.address for planned in plan.notebooks):
        return None
    return load_plan(pyproject)


def _warm_kernels(config: pytest.Config, plan: Plan) -> WarmKernels | None:
    from research_kit.regression.warm_kernels import WarmKernels, find_imports

    known = config.stash[_WARM_KERNELS]
    if plan.root not in known:
        preload = plan.preload
        if preload is None and plan.is_warm:
            preload = find_imports(planned.path for planned in plan.notebooks)
        known[plan.root] = WarmKernels(preload or ()) if plan.is_warm else None
    return known[plan.root]


def _find_plan(config: pytest.Config, folder: Path) -> Plan | None:
    from research_kit.regression.plan import find_plan, load_plan

    plans = config.stash[_PLANS]
    if folder not in plans:
        # Remembered first: a plan that cannot be used is one error, not one per notebook.
        plans[folder] = None
        pyproject = find_plan(folder)
        # What is collected are files of the tree: a test run is to need no network.
        plans[folder] = load_plan(pyproject, fetches=False) if pyproject is not None else None
        if plans[folder] is not None:
            defer_slow_formats()
    return plans[folder]

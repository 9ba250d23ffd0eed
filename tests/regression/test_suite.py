"""The whole plan without pytest: `research-kit test`, its reports, and where it runs."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import research_kit as rk
from research_kit.cli import main
from research_kit.errors import ConfigError
from research_kit.regression import load_plan
from research_kit.regression.executors import executor_maker
from research_kit.regression.ipyparallel_executor import EnginesExecutor, Watch
from research_kit.regression.report_files import github_annotations, junit_xml, markdown_summary
from research_kit.regression.report_page import report_page
from research_kit.regression.suite import SuiteOptions, plan_tasks, run_suite
from research_kit.regression.summary import RunSummary

NOTEBOOKS = 'notebooks = ["notebooks/*.ipynb"]'
BOTH_PASSED = {"calm": "passed", "deadly": "passed"}
HOSTILE = "<script>alert(1)</script> | %0A ::error::x"


def mixed_project(project: Any) -> Path:
    project.notebook("good", "print(1)")
    project.notebook("changed", "import os\nprint('mean', os.environ.get('MEAN', '0.5'))")
    project.notebook("raising", f"print('before')\nraise ValueError({HOSTILE!r})")
    project.notebook("scan", "size = 1", "print(size)", tags={0: ["parameters"]})
    project.notebook("unreadable", "1").write_text("<<<<<<< ours", encoding="utf-8")
    project.configure(
        NOTEBOOKS,
        'expected_dir = "expected"',
        "[tool.research_kit.regression.per_notebook.scan]",
        "matrix = { size = [2, 3] }",
    )
    return project.root


def test_command_runs_the_plan_and_writes_reports(project, capsys, monkeypatch):
    """One line per notebook, the cells to look at, every report, and an exit code; failed ones run again."""
    root = mixed_project(project)
    monkeypatch.chdir(root)
    assert main(["test", "good", "changed", "scan*", "--accept"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("4 accepted in ")
    monkeypatch.setenv("MEAN", "0.6")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(root / "summary.md"))
    assert main(["test", "--html", "page.html", "--junit-xml", "junit.xml", "--workers", "2"]) == 1
    told = capsys.readouterr().out
    assert_tells_what_failed(told)
    assert_writes_reports(root)
    monkeypatch.delenv("MEAN")
    assert main(["test", "--last-failed"]) == 1
    assert "1 failed, 1 not started, 1 passed in " in capsys.readouterr().out


def assert_tells_what_failed(told: str) -> None:
    lines = told.splitlines()
    verdicts = sorted(line.split("]")[1].split()[0] for line in lines[:6])
    assert verdicts == ["differs", "failed", "not_started", "passed", "passed", "passed"]
    assert "  | -mean 0.5\n  | +mean 0.6\n" in told
    assert "notebooks/raising.ipynb, In [1], cell 1 of the notebook:\n  | print('before')\n" in told
    assert "last output:\n  | before" in told
    assert any(line.startswith("1 differs, 1 failed, 1 not started, 3 passed in ") for line in lines)
    assert "::error file=notebooks/changed.ipynb,title=changed%3A differs::" in told


def assert_writes_reports(root: Path) -> None:
    cases = ET.parse(root / "junit.xml").getroot().findall(".//testcase")
    assert {case.get("name"): [child.tag for child in case][1:] for case in cases} == {
        "changed": ["failure"],
        "good": [],
        "raising": ["failure"],
        "scan.2": [],
        "scan.3": [],
        "unreadable": ["error"],
    }
    page = (root / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert '<span class="plus">+mean 0.6</span>' in page
    assert "<script>" not in (root / "summary.md").read_text(encoding="utf-8")


def test_history_is_a_frame_and_compares_commits(project, monkeypatch):
    """Every run is a row; two commits are compared notebook by notebook."""
    folder = project.root / "runs"
    folder.mkdir()
    rows = [
        {"start_time": f"2026-01-0{day}T00:00:00+00:00", "notebook": "a", "outcome": "passed",
         "commit": commit, "branch": "main", "duration_s": duration, "cost_usd": cost, "total_tokens": 10}
        for day, commit, duration, cost in ((3, "bbb", 3.0, 0.4), (1, "aaa", 1.0, 0.1), (2, "aaa", 3.0, 0.3))
    ]  # fmt: skip
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    frame = rk.runs_df(folder)
    assert frame["commit"].tolist() == ["aaa", "aaa", "bbb"]
    assert {str(kind) for kind in frame.dtypes} == {
        "string", "float64", "Int64", "boolean", "datetime64[ns, UTC]",
    }  # fmt: skip
    compared = rk.compare_runs("aa", "bbb", folder=folder).set_index("measure")
    assert compared.loc["cost_usd", ["before", "after"]].tolist() == pytest.approx([0.2, 0.4])
    assert compared.loc["cost_usd", "change"] == pytest.approx(1.0)
    assert compared.loc["cost_usd", ["before_count", "after_count"]].tolist() == [2, 1]
    assert rk.runs_df(project.root / "nothing").empty
    with pytest.raises(ConfigError, match=r"no run of the commit 'ccc'\. There are runs of: aaa, bbb\."):
        rk.compare_runs("aaa", "ccc", folder=folder)


def test_a_flaky_notebook_is_told_and_not_red(project, capsys, monkeypatch):
    """A notebook that passes only sometimes is flaky; one that never passes is red."""
    project.notebook(
        "coin",
        "from pathlib import Path\nside = Path('side')\nside.open('a').write('x')",
        "assert len(side.read_text()) != 2",
    )
    project.configure(NOTEBOOKS)
    monkeypatch.chdir(project.root)
    assert main(["test", "--repeat", "3", "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert "coin is flaky: 2 of 3 runs passed, took " in told
    assert "1 flaky in" in told
    outcomes = rk.runs_df(project.root / ".research_kit" / "runs")["outcome"].tolist()
    assert outcomes == ["passed", "failed", "passed"]


def test_list_shows_runs_and_sanitizers(project, capsys, monkeypatch):
    """What would run, and what is made equal, can be looked at."""
    root = mixed_project(project)
    monkeypatch.chdir(root)
    assert main(["test", "--list", "scan"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("scan.2  (notebooks/scan.ipynb; no baseline)\nscan.3  ")
    assert "  timestamps: Date and time together in ISO 8601 order" in told
    assert main(["test", "nothing"]) == 2


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    import distributed

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def ipyparallel_address(tmp_path: Path) -> Iterator[str]:
    import ipyparallel

    with ipyparallel.Cluster(n=2, profile_dir=str(tmp_path / "profile"), cluster_id="tested") as client:
        client.wait_for_engines(2, timeout=60, interactive=False)
        yield str(tmp_path / "profile" / "security" / "ipcontroller-tested-client.json")


def fragile_project(project: Any) -> list[Any]:
    """Two notebooks, of which one kills the worker that runs it, once."""
    project.notebook("calm", "print(1)")
    project.notebook(
        "deadly",
        "import os, pathlib, signal\nmark = pathlib.Path('mark')\n"
        "if not mark.exists():\n    mark.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\n",
    )
    project.configure(NOTEBOOKS, "warm_kernels = false")
    plan = load_plan(project.root)
    return plan_tasks(plan, plan.notebooks, SuiteOptions())


def verdicts(tasks: list[Any], make: Any) -> dict[str, str]:
    ended: list[RunSummary] = []
    summaries = run_suite(tasks, make, on_end=ended.append)
    assert sorted(one.name for one in ended) == [one.name for one in summaries]
    return {one.name: one.verdict for one in summaries}


def test_processes_survive_a_dead_worker(project):
    """A notebook whose worker dies is run again, once, in a new worker; the others are not lost."""
    tasks = fragile_project(project)
    assert verdicts(tasks, executor_maker("processes", worker_count=1)) == BOTH_PASSED


def test_dask_survives_a_dead_worker(project, dask_address):
    """On a Dask cluster the same tasks run, and the one whose worker died runs again."""
    tasks = fragile_project(project)
    assert verdicts(tasks, executor_maker("dask", address=dask_address)) == BOTH_PASSED


def test_ipyparallel_survives_a_dead_engine(project, ipyparallel_address):
    """The notebook whose engine died runs again on another engine."""
    tasks = fragile_project(project)
    assert verdicts(tasks, executor_maker("ipyparallel", address=ipyparallel_address)) == BOTH_PASSED


class DeafClient:
    """A client of a cluster that takes tasks and never ends one; without engines, or without a controller."""

    def __init__(self, ids: list[int], *, answers: bool) -> None:
        self.ids, self.answers, self.taken, self.is_closed = ids, answers, 0, threading.Event()

    def load_balanced_view(self) -> DeafClient:
        return self

    def apply_async(self, fn: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        self.taken += 1
        return Future()

    def queue_status(self) -> dict[str, int]:
        if not self.answers:
            self.is_closed.wait()
            raise OSError("Connections have been closed.")
        return {"unassigned": self.taken}

    def close(self, linger: int | None = None) -> None:
        self.is_closed.set()


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (DeafClient([], answers=True), r"no engine left\. Start some: ipcluster start"),
        (
            DeafClient([0], answers=False),
            r"controller of the cluster does not answer\. Start the cluster again",
        ),
    ],
    ids=["no engine", "no controller"],
)
def test_ipyparallel_tasks_end_when_the_cluster_is_gone(client, message):
    """A task that nobody will ever run ends with what to do, and the executor can be closed."""
    watch = Watch(period_s=0.01, no_engine_s=0.02, ask_period_s=0.02, answer_s=0.02)
    executor = EnginesExecutor(client, watch)
    tasks = [executor.submit(print), executor.submit(print)]
    executor.shutdown()
    assert client.is_closed.is_set()
    for task in tasks:
        with pytest.raises(ConnectionError, match=message):
            task.result(timeout=0)


def test_ipyparallel_without_a_cluster_is_told(tmp_path):
    """Without a controller the error says how to start one."""
    missing = str(tmp_path / "ipcontroller-client.json")
    with pytest.raises(ConfigError, match=r"Cannot connect to .* Start some: ipcluster start -n 4"):
        executor_maker("ipyparallel", address=missing)()


def test_executors_refuse_what_they_cannot_do():
    """A wrong name and a wrong number are refused."""
    with pytest.raises(ConfigError, match=r"'slurm' is unknown\. Use one of: threads, processes, dask, ipy"):
        executor_maker("slurm")
    with pytest.raises(ConfigError, match="The number of workers is 0; it must be at least 1"):
        executor_maker("threads", worker_count=0)


def summary(number: int, verdict: str = "passed", **more: Any) -> RunSummary:
    empty: dict[str, Any] = {
        "message": "", "problems": (), "cells": (), "duration_s": 1.0, "start_time_s": 0.0, "output_path": "",
        "session_url": "", "parameters": "", "expected_from": "baseline", "accepted_path": "",
        "changed_count": 0, "repeats": "", "cost_usd": None, "total_tokens": None, "lm_call_count": None,
        "tool_call_count": None,
    }  # fmt: skip
    name = f"n{number:03}"
    return RunSummary(name=name, path=f"notebooks/{name}.ipynb", verdict=verdict, **{**empty, **more})


def test_reports_of_many_notebooks_stay_readable():
    """At 200 notebooks what failed comes first, and Markdown names only what needs a look."""
    failed = summary(199, "failed", message=f"failed: {HOSTILE}\nmore", session_url="http://x/s?token=secret")
    summaries = [*(summary(number) for number in range(199)), failed]
    markdown = markdown_summary(summaries)
    assert markdown.startswith("### Notebooks: 1 failed, 199 passed\n")
    assert len(markdown.splitlines()) == 7
    assert (
        "<code>failed&#58; &#60;script&#62;alert(1)&#60;/script&#62; &#124; %0A &#58;&#58;error" in markdown
    )
    page = report_page(summaries, commit="abc", branch="main")
    assert page.index("n199") < page.index("n000")
    assert "secret" not in page
    assert "<script>alert" not in page
    (line,) = github_annotations(summaries)
    assert line == (
        "::error file=notebooks/n199.ipynb,title=n199%3A failed::"
        "failed: <script>alert(1)</script> | %250A ::error::x"
    )
    assert ET.fromstring(junit_xml(summaries))[0].get("failures") == "1"
    assert all(RunSummary.from_json(one.to_json()) == one for one in summaries)

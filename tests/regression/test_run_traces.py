"""A notebook that calls a model and a tool: recorded, replayed, and judged by what its traces say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kernels import Observations
from scripted_lm import ScriptedLM, running_lm

from research_kit.errors import ConfigError
from research_kit.regression import Repeats, check_notebook, load_plan, repeat_check
from research_kit.regression.check import CheckOptions
from research_kit.regression.summary import summarize
from research_kit.regression.trace_baseline import read_trace_baseline
from research_kit.regression.warm_kernels import WarmKernels
from research_kit.store import ensure_running, stop_store

SETUP = """
import os
import dspy
import research_kit as rk
from research_kit.agent import ToolServer
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")

@server.tool()
def look(page: int) -> str:
    return f"page {page} of {os.getpid()}"

place = os.environ.get("PLACE")
lm = dspy.LM("openai/gpt-4o-mini", cache=False, **({"api_base": place, "api_key": "none"} if place else {}))
"""
ASK = "print(lm('hello')[0])"
LOOK = (
    "found = ToolServer('notes', server).call_tool('look', {'page': 3}).text\nprint(found.split(' of ')[0])"
)
EXPECT = "rk.expect(max_cost_usd=0.001, max_lm_calls=1, no_errors=True)"


@pytest.fixture
def scripted() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()


@pytest.fixture(scope="module")
def warm_kernels() -> Iterator[WarmKernels]:
    kernels = WarmKernels(["dspy", "langfuse", "mcp"])
    yield kernels
    kernels.close()


@pytest.fixture
def store(clean_environment: Path) -> Iterator[Observations]:
    data_dir = Path(os.environ["RESEARCH_KIT_DATA_DIR"])
    yield Observations(ensure_running(data_dir))
    stop_store(data_dir)


def test_a_run_is_replayed_and_judged_by_its_traces(project, scripted, store, warm_kernels, monkeypatch):
    """One notebook through its life: recorded, accepted, replayed, changed, and caught."""
    scripted.script("hi there")
    project.notebook("asking", SETUP, ASK, LOOK, EXPECT)
    configured = ('notebooks = ["notebooks/*.ipynb"]', 'expected_dir = "expected"')
    project.configure(*configured)
    plan = load_plan(project.root)
    [planned] = plan.notebooks
    recorded_options = replace(planned.options, environment={"PLACE": scripted.base_url})
    recorded = check_notebook(
        replace(planned, options=recorded_options), plan, record="all", accept=True, warm_kernels=warm_kernels
    )
    assert recorded.is_passed, (recorded.run.message, recorded.trace_problems)
    assert recorded.run.replay.recorded_count == 3

    replayed = check_notebook(planned, plan, warm_kernels=warm_kernels)
    assert replayed.is_passed, (replayed.run.message, replayed.trace_problems, replayed.differences)
    facts = replayed.run.facts
    assert (facts.lm_call_count, facts.models) == (1, ("openai/gpt-4o-mini",))
    assert facts.cost_usd == recorded.run.facts.cost_usd > 0
    rows = store.read(sessionId=replayed.run.session_id)
    assert {row["sessionId"] for row in rows} == {replayed.run.session_id}
    assert {"regression"} == {tag for row in rows for tag in row["tags"]}

    # A cell that catches the error of a call that cannot be replayed does not hide it.
    caught = "try:\n    print(lm('good day')[0])\nexcept LookupError:\n    print('hi there')"
    project.notebook("asking", SETUP, caught, EXPECT)
    changed = check_notebook(planned, plan, warm_kernels=warm_kernels)
    assert not changed.is_passed
    assert any("+prompt: good day" in problem for problem in changed.trace_problems)
    assert any(
        problem.startswith("language model calls: 0, accepted were 1") for problem in changed.trace_problems
    )

    # A notebook that does less than was recorded is told so, and a budget is kept.
    project.notebook("asking", SETUP, ASK)
    project.configure(*configured, "[tool.research_kit.regression.budgets.asking]", "max_total_tokens = 1")
    plan = load_plan(project.root)
    less = check_notebook(plan.notebooks[0], plan, warm_kernels=warm_kernels)
    assert less.trace_problems[0].startswith("2 recorded call(s) were not made:\n- mcp ")
    assert "max_total_tokens=1 is exceeded: 3." in less.trace_problems


def test_repeated_live_runs_are_judged_together(project, scripted, store, warm_kernels):
    """A noisy cost is neither flaky nor red; one that has risen is red, once, with means and p."""
    project.notebook("asking", SETUP, "assert lm('hello')")
    # How long the machine takes for an answer is not the subject, and on a busy one it doubles.
    own = ("preload = []", "latency_tolerance = 100")
    project.configure('notebooks = ["notebooks/*.ipynb"]', 'expected_dir = "expected"', *own)
    plan = load_plan(project.root)
    live = replace(plan.notebooks[0].options, environment={"PLACE": scripted.base_url})
    planned = replace(plan.notebooks[0], options=live)

    def repeat(*word_counts: int, accept: bool = False) -> Repeats:
        scripted.script(*(" ".join(["word"] * count) for count in word_counts))
        options = CheckOptions(accept=accept)
        return repeat_check(planned, plan, options, count=len(word_counts), warm_kernels=warm_kernels)

    accepted = repeat(100, 140, accept=True)
    assert accepted.is_passed, (accepted.shown.run.message, accepted.shown.trace_problems)
    samples = read_trace_baseline(planned.trace_baseline_path)["repeats"]
    assert samples["total_tokens"] == [101, 141]
    noisy = repeat(160, 90)
    assert (noisy.is_passed, noisy.is_flaky, noisy.problems) == (True, False, ())
    risen = repeat(300, 200)
    assert (risen.is_passed, risen.is_flaky, risen.passed_count) == (False, False, 2)
    assert [problem.partition(":")[0] for problem in risen.problems][:2] == ["cost_usd", "total_tokens"]
    told = "total_tokens: 251 on average of 2 runs, accepted were 121 on average of 2 runs (+107 %, p = 0.17)"
    assert risen.problems[1].startswith(told)
    assert [check.verdict for check in risen.recorded] == ["passed", "differs"]
    summary = summarize(risen, plan.root)
    assert (summary.verdict, summary.problems) == ("differs", risen.problems)


def test_a_kernel_that_cannot_replay_does_not_call(project, warm_kernels):
    """A cassette that cannot be read ends the run before its first cell."""
    project.notebook("asking", "print('not reached')")
    project.configure('notebooks = ["notebooks/*.ipynb"]', 'expected_dir = "expected"')
    plan = load_plan(project.root)
    path = plan.notebooks[0].cassette_path
    path.parent.mkdir()
    path.write_text("calls: [", encoding="utf-8")
    done = check_notebook(plan.notebooks[0], plan, warm_kernels=warm_kernels).run
    assert done.outcome == "not_started"
    assert "Recorded answers cannot be replayed: Cannot read the cassette" in done.message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["budgets = { max_cost = 1 }"],
            r"budgets in .*'max_cost' is no expectation\. Use one of: max_cost_usd",
        ),
        (["budgets = { tools = 'query' }"], r"tools is 'query', which is not a list of names"),
        (["matrix = { size = 3 }"], r"matrix in .*which is not a table of lists\. Write it as matrix = "),
        (["record = 'some'"], r"record in .*is 'some'\. Use one of: auto, off, none, missing, all"),
        (["environment = { A = 1 }"], r"environment in .*has A = 1, which is not a text\. Put it in quotes"),
        (["parameters_file = 'gone.yaml'"], r"parameters_file in .*gone\.yaml', which cannot be read"),
        (["timeout = 3"], r"timeout in .*is not a setting\. Use one of: budgets, cell_timeout_s"),
        (["matrix = { a = [1] }", "parameter_sets = { 1 = {} }"], r"two sets of the name '1'\. Rename"),
    ],
)
def test_per_notebook_table_refuses(project, lines, message):
    """What cannot be used is refused with its table, key and value."""
    project.notebook("first", "1")
    table = "[tool.research_kit.regression.per_notebook.first]"
    with pytest.raises(ConfigError, match=message):
        load_plan(project.configure('notebooks = ["notebooks/*.ipynb"]', table, *lines))


def test_per_notebook_options_come_from_table_metadata_and_file(project):
    """Grids make runs, the table wins over the notebook's metadata, and limits reach the plan."""
    import nbformat

    path = project.notebook("scan", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["research_kit"] = {
        "cell_timeout_s": 5,
        "markers": ["slow"],
        "budgets": {"tools": ["a"]},
    }
    nbformat.write(notebook, path)
    (project.root / "more.yaml").write_text("- {size: 7}\n- {size: 8, seed: 0.5}\n", encoding="utf-8")
    plan = load_plan(
        project.configure(
            'notebooks = ["notebooks/*.ipynb"]',
            "[tool.research_kit.regression.budgets.'*']",
            "no_errors = true",
            "[tool.research_kit.regression.per_notebook.scan]",
            "cell_timeout_s = 9",
            "parameters = { seed = 1 }",
            "matrix = { size = [10, 100], fast = [true] }",
            "parameters_file = 'more.yaml'",
        )
    )
    assert {one.name: dict(one.parameters) for one in plan.notebooks} == {
        "scan.10-true": {"seed": 1, "size": 10, "fast": True},
        "scan.100-true": {"seed": 1, "size": 100, "fast": True},
        "scan.1": {"seed": 1, "size": 7},
        "scan.2": {"seed": 0.5, "size": 8},
    }
    options = plan.notebooks[0].options
    assert (options.cell_timeout_s, options.markers) == (9.0, ("slow",))
    assert (options.expectations.no_errors, options.expectations.tools) == (True, ("a",))

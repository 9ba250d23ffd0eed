"""What a notebook test is for: changes of meaning that were put in on purpose are found, accidents are not.

The outputs are those that real libraries make; each case changes one of them. `FOUND` is the list of changes
that have to be caught, `PASSED_OVER` that of changes that must not be.
"""

from __future__ import annotations

import base64
import copy
import io
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import nbformat
import pandas as pd
import pytest

from research_kit.regression import (
    NotebookPlan,
    TraceFacts,
    compare_notebooks,
    find_expectation,
    write_baseline,
)
from research_kit.regression.expectations import read_expectations
from research_kit.regression.sanitize import DEFAULT_SANITIZERS
from research_kit.regression.trace_baseline import compare_traces, read_trace_baseline, write_trace_baseline

mpl.use("agg")

FRAME = pd.DataFrame(
    {
        "species": ["Adelie", "Gentoo", "Chinstrap"],
        "mass_g": [3700.66, 5076.02, 3733.09],
        "count": [152, 124, 68],
    }
)
CURVE = tuple((n, (n * n) % 17) for n in range(30))
Outputs = list[Any]


def stream(text: str, name: str = "stdout") -> Any:
    return nbformat.v4.new_output("stream", name=name, text=text)


def shown(**data: Any) -> Any:
    names = {"plain": "text/plain", "html": "text/html", "json": "application/json", "png": "image/png"}
    return nbformat.v4.new_output("execute_result", {names[key]: value for key, value in data.items()})


def error(name: str, value: str) -> Any:
    return nbformat.v4.new_output("error", ename=name, evalue=value, traceback=["line 1"])


def table(frame: pd.DataFrame) -> Any:
    return shown(plain=frame.to_string(), html=frame.to_html())


@lru_cache(maxsize=32)
def picture(points: tuple[tuple[float, float], ...] = CURVE, **options: Any) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=options.get("size", (5, 3)), dpi=options.get("dpi", 80))
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True), color=options.get("color", "tab:blue"))
    axes.set_title(options.get("title", "mass"))
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": options.get("software", "one")})
    return base64.b64encode(target.getvalue()).decode()


def notebook(*cells: Outputs) -> Any:
    made = [
        nbformat.v4.new_code_cell(
            f"cell {n}", id=f"id-{n}", outputs=copy.deepcopy(outputs), execution_count=n + 1
        )
        for n, outputs in enumerate(cells)
    ]
    return nbformat.v4.new_notebook(cells=made)


def differences(tmp_path: Any, before: Outputs, after: Outputs) -> tuple[Any, ...]:
    """Accept `before`, as a user would, and compare `after` with what was written."""
    planned = NotebookPlan(
        path=tmp_path / "n.ipynb", set_name=None, parameters={}, baseline_path=tmp_path / "n.json"
    )
    write_baseline(notebook(before), planned, sanitizers=DEFAULT_SANITIZERS, keeps_images=True)
    return compare_notebooks(find_expectation(planned).notebook, notebook(after), image_tolerance=0.1)


def changed(**columns: list[Any]) -> pd.DataFrame:
    return FRAME.assign(**columns)


OFF = 1.01
LONG = "\n".join(f"line {n}" for n in range(20_000))
FOUND: dict[str, tuple[Outputs, Outputs]] = {
    "number in a text off by 1 %": ([stream("mean 4169.92")], [stream(f"mean {4169.92 * OFF:.2f}")]),
    "last digit of a number": ([stream("0.1234567")], [stream("0.1234568")]),
    "sign": ([shown(plain="-0.25")], [shown(plain="0.25")]),
    "power of ten": ([shown(plain="1.5e-05")], [shown(plain="1.5e-04")]),
    "cell of a table off by 1 %": (
        [table(FRAME)],
        [table(changed(mass_g=[3700.66 * OFF, 5076.02, 3733.09]))],
    ),
    "column renamed": ([table(FRAME)], [table(FRAME.rename(columns={"count": "number"}))]),
    "columns swapped": ([table(FRAME)], [table(FRAME[["species", "count", "mass_g"]])]),
    "column lost": ([table(FRAME)], [table(FRAME.drop(columns="count"))]),
    "row lost": ([table(FRAME)], [table(FRAME.iloc[:2])]),
    "row twice": ([table(FRAME)], [table(pd.concat([FRAME, FRAME.iloc[2:]]))]),
    "rows in another order": ([table(FRAME)], [table(FRAME.iloc[::-1])]),
    "index lost": ([table(FRAME.set_index("species"))], [table(FRAME)]),
    "value missing": ([table(FRAME)], [table(changed(count=[152, None, 68]))]),
    "whole numbers became fractions": ([table(FRAME)], [table(changed(count=[152.0, 124.0, 68.0]))]),
    "label in a table": ([table(FRAME)], [table(changed(species=["Adelie", "Gentoo", "Chinstap"]))]),
    "curve changed": ([shown(png=picture())], [shown(png=picture(tuple((x, 17 - y) for x, y in CURVE)))]),
    "curve emptied": ([shown(png=picture())], [shown(png=picture(((0, 0), (29, 0))))]),
    "colour of a curve": ([shown(png=picture())], [shown(png=picture(color="tab:red"))]),
    "shape of a picture": ([shown(png=picture())], [shown(png=picture(size=(3, 3)))]),
    "picture lost": ([shown(plain="<Figure>", png=picture())], [shown(plain="<Figure>")]),
    "exception swallowed": ([error("ValueError", "no rows")], [stream("0 rows")]),
    "another exception": ([error("ValueError", "no rows")], [error("KeyError", "no rows")]),
    "message of an exception": ([error("ValueError", "3 rows")], [error("ValueError", "4 rows")]),
    "new warning": ([stream("1\n")], [stream("1\n"), stream("RuntimeWarning: divide by zero", "stderr")]),
    "output lost": ([stream("a"), shown(plain="1")], [stream("a")]),
    "line lost in a long text": ([stream(LONG)], [stream(LONG.replace("line 17000\n", ""))]),
    "end of a long text": ([stream(LONG)], [stream(LONG + "!")]),
    "value in JSON": ([shown(json={"a": {"b": [1, 2]}})], [shown(json={"a": {"b": [1, 3]}})]),
    "key in JSON": ([shown(json={"a": 1})], [shown(json={"b": 1})]),
    "type in JSON": ([shown(json={"a": 1})], [shown(json={"a": "1"})]),
    "member of a set": ([stream("{'a', 'b'}")], [stream("{'a', 'c'}")]),
    "order of a list": ([stream("['a', 'b']")], [stream("['b', 'a']")]),
    "link in HTML": ([shown(html="<a href='/x'>x</a>")], [shown(html="<a href='/y'>x</a>")]),
    "element in HTML": ([shown(html="<b>x</b>")], [shown(html="<i>x</i>")]),
    "date without a time": ([stream("on 2026-01-02")], [stream("on 2026-01-03")]),
    "unit": ([stream("5 kg")], [stream("5 g")]),
    "file name": ([stream("/tmp/a/out.csv")], [stream("/tmp/a/in.csv")]),
    "count in a progress bar": (
        [stream("50/50 [00:01<00:00, 49.80it/s]", "stderr")],
        [stream("49/49 [00:01<00:00, 49.80it/s]", "stderr")],
    ),
}
BAR = "100%|\u2588\u2588\u2588\u2588| 50/50 [00:0{}<00:00, {}it/s]"
PASSED_OVER: dict[str, tuple[Outputs, Outputs]] = {
    "timestamp": ([stream("at 2026-01-02 03:04:05")], [stream("at 2027-02-03 04:05:06.7")]),
    "timestamp with a zone": ([stream("2026-01-02T03:04:05Z")], [stream("2027-01-02T03:04:05+01:00")]),
    "time of a log": ([stream("2026-01-02 03:04:05,123 INFO x")], [stream("2026-11-02 13:04:05,999 INFO x")]),
    "address": ([shown(plain="<A object at 0x7f13d92e1980>")], [shown(plain="<A object at 0x10aa>")]),
    "address of a function": (
        [shown(plain="<function f at 0x7f00>")],
        [shown(plain="<function f at 0x7f11>")],
    ),
    "uuid": (
        [stream("id 0f8fad5b-d9cb-469f-a165-70867728950e")],
        [stream("id 7c9e6679-7425-40de-944b-e07fc1f90ae7")],
    ),
    "session": (
        [stream("jupyter-0f8fad5b-d9cb-469f-a165-70867728950e")],
        [stream("jupyter-7c9e6679-7425-40de-944b-e07fc1f90ae7")],
    ),
    "trace id": ([stream("trace_id='" + "a" * 32 + "'")], [stream("trace_id='" + "b" * 32 + "'")]),
    "trace link": ([stream("x/traces/" + "a" * 32)], [stream("x/traces/" + "0" * 32)]),
    "duration": ([stream("took 0.123 s")], [stream("took 12.4 s")]),
    "milliseconds": ([stream("CPU: 12 ms")], [stream("CPU: 250 ms")]),
    "%%time": (
        [stream("CPU times: user 1.2 ms, sys: 3 ms, total: 4.2 ms\nWall time: 4.5 ms")],
        [stream("CPU times: user 9.2 ms, sys: 1 ms, total: 10.2 ms\nWall time: 24.5 ms")],
    ),
    "%timeit loops": ([stream("7 runs, 100,000 loops each")], [stream("7 runs, 10,000 loops each")]),
    "progress bar": ([stream(BAR.format(1, "49.8"), "stderr")], [stream(BAR.format(2, "21.8"), "stderr")]),
    "steps of a progress bar": (
        [stream("0%\r50%\r100%\n", "stderr")],
        [stream("0%\r20%\r40%\r80%\r100%\n", "stderr")],
    ),
    "temporary folder": ([stream("/tmp/a1/out.csv")], [stream("/tmp/b2/out.csv")]),
    "home folder": ([stream("/home/ann/data/x.csv")], [stream("/home/bob/data/x.csv")]),
    "port": ([stream("http://127.0.0.1:8080/x")], [stream("http://127.0.0.1:9091/x")]),
    "file of a cell": (
        [stream("/tmp/ipykernel_1/2.py:1: UserWarning: x", "stderr")],
        [stream("/tmp/ipykernel_3/4.py:1: UserWarning: x", "stderr")],
    ),
    "order of a set": ([stream("{'b', 'a', 'c'}")], [stream("{'a', 'c', 'b'}")]),
    "set of numbers": ([stream("found {8, 1, 5}")], [stream("found {1, 5, 8}")]),
    "split stream": ([stream("ab\n")], [stream("a"), stream("b\n")]),
    "interleaved streams": (
        [stream("a"), stream("w", "stderr"), stream("b")],
        [stream("ab"), stream("w", "stderr")],
    ),
    "width of columns": (
        [shown(plain="   x  y\n0  1  2", html="<table><tr><td>1</td><td>2</td></tr></table>")],
        [shown(plain="     x    y\n0    1    2", html="<table><tr><td>1</td><td>2</td></tr></table>")],
    ),
    "blanks in HTML": ([shown(html="<p>a b</p>")], [shown(html="<p>\n  a   b </p>\n")]),
    "order of attributes": (
        [shown(html="<a href='x' title='y'>a</a>")],
        [shown(html="<a title='y' href='x'>a</a>")],
    ),
    "style of a table": (
        [shown(html="<style>td {color: red}</style><table class='a'><tr><td>1</td></tr></table>")],
        [shown(html="<table style='width: 9px' border='1'><tr><td>1</td></tr></table>")],
    ),
    "id of a styled table": (
        [shown(html="<table id='T_1a2b3'><tr><td id='T_1a2b3_row0'>1</td></tr></table>")],
        [shown(html="<table id='T_9f8e7'><tr><td id='T_9f8e7_row0'>1</td></tr></table>")],
    ),
    "order of keys in JSON": ([shown(json={"a": 1, "b": 2})], [shown(json={"b": 2, "a": 1})]),
    "metadata of a picture": ([shown(png=picture())], [shown(png=picture(software="two"))]),
    "resolution of a picture": ([shown(png=picture())], [shown(png=picture(dpi=100))]),
    "traceback": (
        [error("ValueError", "x")],
        [nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=["line 7"])],
    ),
    "number of the cell": (
        [shown(plain="1")],
        [nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=7)],
    ),
}


@pytest.mark.parametrize(("before", "after"), FOUND.values(), ids=FOUND)
def test_a_change_of_meaning_is_found(tmp_path, before, after):
    """Each seeded change is found, and described."""
    found = differences(tmp_path, before, after)
    assert found
    assert all(one.diff for one in found)
    assert differences(tmp_path, before, before) == ()


@pytest.mark.parametrize(("before", "after"), PASSED_OVER.values(), ids=PASSED_OVER)
def test_an_accident_is_passed_over(tmp_path, before, after):
    """Each accident is no difference, whichever side was accepted."""
    assert differences(tmp_path, before, after) == ()
    assert differences(tmp_path, after, before) == ()


FACTS = TraceFacts(
    session_ids=("one",),
    observation_count=9,
    lm_call_count=3,
    input_tokens=900,
    output_tokens=100,
    cost_usd=0.003,
    models=("openai/gpt-4o-mini",),
    tools=("describe", "query"),
    lm_latency_p50_s=0.5,
    lm_latency_p95_s=1.5,
)
TRACES: dict[str, tuple[dict[str, Any], str]] = {
    "cost doubled": ({"cost_usd": 0.006}, r"cost_usd: 0\.006, accepted were 0\.003 \(\+100 %\)"),
    "tokens doubled": ({"input_tokens": 1900}, r"total_tokens: 2000, accepted were 1000"),
    "tool not called": ({"tools": ("describe",)}, r"tools called: describe, accepted were describe, query\."),
    "tool called twice": ({"tools": ("describe", "query", "query")}, r"tools called: describe, query, query"),
    "tools in another order": ({"tools": ("query", "describe")}, r"tools called: query, describe"),
    "one more call": ({"lm_call_count": 4}, r"language model calls: 4, accepted were 3"),
    "another model": (
        {"models": ("openai/gpt-4o",)},
        r"models: openai/gpt-4o, accepted were openai/gpt-4o-mini",
    ),
    "a failure": ({"errors": ("query: boom",)}, r"failed observations: 1, accepted were 0"),
}
SAME: dict[str, dict[str, Any]] = {
    "session": {"session_ids": ("two",)},
    "latency": {"lm_latency_p50_s": 5.0, "lm_latency_p95_s": 9.0},
    "5 % dearer": {"cost_usd": 0.00315},
    "cheaper": {"cost_usd": 0.001, "input_tokens": 100},
    "more cells": {"observation_count": 12},
}


def against_baseline(tmp_path: Any, facts: TraceFacts, *, is_replayed: bool = True) -> tuple[str, ...]:
    write_trace_baseline(tmp_path / "n.trace.json", FACTS)
    accepted = read_trace_baseline(tmp_path / "n.trace.json")
    assert accepted is not None
    return compare_traces(accepted, facts, tolerance=0.1, is_replayed=is_replayed)


@pytest.mark.parametrize(("change", "message"), TRACES.values(), ids=TRACES)
def test_a_change_of_the_traces_is_found(tmp_path, change, message):
    """A run that costs more or calls something else than the accepted one is found."""
    (found,) = against_baseline(tmp_path, replace(FACTS, **change))
    assert re.search(message, found)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_an_accident_of_the_traces_is_passed_over(tmp_path, change):
    """Ids, latencies and small changes of the cost are none."""
    assert against_baseline(tmp_path, replace(FACTS, **change)) == ()


def test_a_live_model_may_take_another_way(tmp_path):
    """Without a cassette the number and order of calls is the model's; which tools there are is not."""
    other_way = replace(FACTS, tools=("query", "describe", "query"), lm_call_count=4)
    assert against_baseline(tmp_path, other_way, is_replayed=False) == ()
    assert against_baseline(tmp_path, replace(FACTS, tools=("query",)), is_replayed=False)


UNMET: dict[str, tuple[dict[str, Any], str]] = {
    "cost": ({"max_cost_usd": 0.002}, "max_cost_usd=0.002 is exceeded: 0.003."),
    "tokens": ({"max_total_tokens": 999}, "max_total_tokens=999 is exceeded: 1000."),
    "calls": ({"max_lm_calls": 2}, "max_lm_calls=2 is exceeded: 3."),
    "tool calls": ({"max_tool_calls": 1}, "max_tool_calls=1 is exceeded: 2."),
    "latency": ({"max_latency_p95_s": 1}, "max_latency_p95_s=1 is exceeded: 1.5."),
    "tools": ({"tools": ["query"]}, "tools: expected query, called were describe, query."),
    "sequence": ({"tool_sequence": ["query", "describe"]}, "tool_sequence: expected query, describe"),
    "models": ({"models": ["local"]}, "models: expected only local, called were also openai/gpt-4o-mini."),
}


@pytest.mark.parametrize(("expected", "message"), UNMET.values(), ids=UNMET)
def test_unmet_expectations_are_told_with_both_values(expected, message):
    """What is expected and what was done are both in the sentence."""
    (found,) = read_expectations(expected).find_unmet(FACTS)
    assert found.startswith(message)


def test_expectations_that_are_met_say_nothing():
    """Limits include themselves, names may come in any order; an unknown cost cannot be checked."""
    met = {"max_cost_usd": 0.003, "max_total_tokens": 1000, "tools": ["query", "describe"], "no_errors": True}
    assert read_expectations(met).find_unmet(FACTS) == ()
    (unknown,) = read_expectations(met).find_unmet(replace(FACTS, unknown_cost_count=1))
    assert unknown.startswith("max_cost_usd=0.003 cannot be checked: the cost of 1 of 3")
    (failed,) = read_expectations(met).find_unmet(replace(FACTS, errors=("query: boom",)))
    assert failed == "no_errors: 1 observation(s) failed; the first: query: boom"


def test_the_difference_of_a_table_names_row_and_column(tmp_path):
    """A changed cell of a table is told with its place and by how much."""
    after = changed(mass_g=[3700.66, 5126.78, 3733.09])
    found = differences(tmp_path, [table(FRAME)], [table(after)])
    assert "row 1, mass_g: 5076.02 -> 5126.78 (+1 %)" in found[0].diff

"""Every place that says a number says the same: real observations, a real store, and all who look at them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from counting_trees import TREES
from langfuse import get_client
from page_visits import enter, opened_browser

import research_kit as rk
from research_kit.chat.spending import spending, start_counting
from research_kit.counting import Facts
from research_kit.regression.span_watch import SpanWatch
from research_kit.regression.trace_facts import Observed, sum_up
from research_kit.session import kernel_session
from research_kit.store import StoreAddress
from research_kit.store.page_sums import summarise
from research_kit.views.nodes import trace_trees

_SESSION_COUNT = 500
_KINDS = ("generation", "embedding", "tool", "agent", "chain", "span", "retriever")


class _Numbers(NamedTuple):
    """What one place says of one session; None where it says nothing of it."""

    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    unpriced_count: int | None
    call_count: int | None = None
    tool_call_count: int | None = None
    error_count: int | None = None


def _begin(facts: Facts, parent: Any) -> Any:
    details: dict[str, Any] = {}
    if facts.input_tokens is not None:
        details["usage_details"] = {"input": facts.input_tokens, "output": facts.output_tokens}
    if facts.cost_usd is not None:
        details["cost_details"] = {"total": facts.cost_usd}
    if facts.type in ("GENERATION", "EMBEDDING"):
        details["model"] = "house-model"
    start = parent.start_observation if parent is not None else get_client().start_observation
    usual = facts.type in ("GENERATION", "EMBEDDING")
    begun = start(name=facts.name, as_type=facts.type.lower(), **(details if usual else {}))
    if not usual:
        # Langfuse's SDK takes usage of any type as attributes only.
        for key, value in details.items():
            begun._otel_span.set_attribute(f"langfuse.observation.{key}", _json(value))
    if facts.is_error:
        begun.update(level="ERROR", status_message=f"{facts.name} failed")
    return begun


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _make(nodes: Sequence[tuple[int, Facts]]) -> str:
    """Make a tree of real observations in a session of its own; return the session."""
    rk.new_session()
    made: list[Any] = []
    for parent, facts in nodes:
        made.append(_begin(facts, made[parent] if parent >= 0 else None))
    for observation in reversed(made):
        observation.end()
    return str(rk.current_session_id())


def _random_tree(rng: random.Random) -> list[tuple[int, Facts]]:
    nodes = []
    for place in range(rng.randint(1, 8)):
        into = rng.choice([None, 10, 20, 100, 1000])
        out = None if into is None else rng.choice([5, 10])
        cost = rng.choice([None, 0.01, 0.02, 0.03, 0.5])
        whole = None if into is None or out is None else into + out
        kind, is_error = rng.choice(_KINDS).upper(), rng.random() < 0.2
        facts = Facts(kind, rng.choice(["step", "look"]), cost, into, out, whole, is_error)
        nodes.append((rng.randint(-1, place - 1) if place else -1, facts))
    return nodes


def _of_frames(frame: pd.DataFrame) -> dict[str, _Numbers]:
    return {
        row["session_id"]: _Numbers(
            row["cost_usd"], row["input_tokens"], row["output_tokens"], row["unpriced_count"],
            tool_call_count=row["tool_call_count"], error_count=row["error_count"],
        )
        for row in frame.to_dict("records")
    }  # fmt: skip


def _of_traces(frame: pd.DataFrame) -> dict[str, _Numbers]:
    sums = frame.groupby("session_id")[
        ["cost_usd", "input_tokens", "output_tokens", "unpriced_count", "tool_call_count", "error_count"]
    ].sum(min_count=1)
    return _of_frames(sums.reset_index())


def _of_costs(frame: pd.DataFrame) -> dict[str, _Numbers]:
    return {
        row["session_id"]: _Numbers(
            row["cost_usd"],
            row["input_tokens"],
            row["output_tokens"],
            row["unpriced_count"],
            row["call_count"],
        )
        for row in frame.to_dict("records")
    }


def _of_views(frame: pd.DataFrame) -> dict[str, _Numbers]:
    found = {}
    for session_id, rows in frame.groupby("session_id"):
        trees = trace_trees(rows, "a test")
        sums = [
            [value for tree in trees if (value := getattr(tree, name)) is not None]
            for name in ("cost_usd", "input_tokens", "output_tokens")
        ]
        found[str(session_id)] = _Numbers(
            *(sum(values) if values else None for values in sums),
            unpriced_count=sum(tree.unpriced_count for tree in trees),
            call_count=sum(tree.call_count for tree in trees),
            tool_call_count=sum(node.is_tool_call for tree in trees for node in tree.nodes),
            error_count=sum(tree.error_count for tree in trees),
        )
    return found


def _of_pages(data_dir: Path, session_ids: Sequence[str]) -> dict[str, _Numbers]:
    with closing(sqlite3.connect(f"file:{data_dir / 'store.db'}?mode=ro", uri=True)) as connection:
        all_sums = {session_id: summarise(connection, session_id).sums for session_id in session_ids}
    return {
        session_id: _Numbers(
            sums.cost_usd, sums.input_tokens, sums.output_tokens, sums.unpriced_count, sums.call_count,
            sums.tool_call_count, sums.error_count,
        )
        for session_id, sums in all_sums.items()
    }  # fmt: skip


def _of_budget(session_ids: Sequence[str]) -> dict[str, _Numbers]:
    used = {session_id: spending().of(session_id).used for session_id in session_ids}
    return {
        session_id: _Numbers(one.cost_usd, one.input_tokens, one.output_tokens, one.unpriced_count)
        for session_id, one in used.items()
    }


def _of_tests(observed: Sequence[Observed]) -> dict[str, _Numbers]:
    found = {}
    for session_id in {one.session_id for one in observed}:
        facts = sum_up([one for one in observed if one.session_id == session_id])
        found[session_id] = _Numbers(
            facts.cost_usd, facts.input_tokens, facts.output_tokens, facts.unknown_cost_count,
            facts.lm_call_count, len(facts.tools), len(facts.errors),
        )  # fmt: skip
    return found


def _differences(all_places: dict[str, dict[str, _Numbers]], session_ids: Sequence[str]) -> Iterator[str]:
    """Yield what differs between the places; what is not known counts as nothing."""
    for session_id in session_ids:
        for place, told in all_places.items():
            base, numbers = all_places["sessions_df"][session_id], told.get(session_id)
            if numbers is None:
                numbers = _Numbers(None, None, None, None)  # a place without a row for what cost nothing
            for name, mine, theirs in zip(_Numbers._fields, base, numbers, strict=True):
                if mine is None or theirs is None or mine is pd.NA or theirs is pd.NA:
                    mine, theirs = (
                        0 if value is None or value is pd.NA else value for value in (mine, theirs)
                    )
                    if name not in ("cost_usd", "input_tokens", "output_tokens"):
                        continue
                values = [0.0 if value != value else float(value) for value in (mine, theirs)]
                if abs(values[0] - values[1]) > 1e-9:
                    yield f"{session_id}: {name} is {values[0]} in sessions_df, {values[1]} in {place}"


@pytest.fixture
def watch() -> SpanWatch:
    watch = SpanWatch()
    rk.bind()
    start_counting()
    kernel_session().watch(watch)
    return watch


def test_every_place_says_the_same(store: StoreAddress, data_dir: Path, watch: SpanWatch) -> None:
    """Over the trees of the documentation and 500 generated sessions there is not one difference."""
    rng = random.Random(20261201)
    trees = [tree.nodes for tree in TREES.values()] + [_random_tree(rng) for _ in range(_SESSION_COUNT)]
    session_ids = [_make(nodes) for nodes in trees]
    assert rk.flush(timeout_s=60)
    frame = rk.observations_df(rk.ALL_SESSIONS, includes_io=False, cache=False)
    assert len(frame) == sum(map(len, trees))
    all_places = {
        "sessions_df": _of_frames(rk.sessions_df()),
        "traces_df": _of_traces(rk.traces_df(rk.ALL_SESSIONS)),
        "cost_by": _of_costs(rk.cost_by(frame, "session")),
        "rk.show": _of_views(rk.observations_df(rk.ALL_SESSIONS, cache=False)),
        "the store's pages": _of_pages(data_dir, session_ids),
        "rk.budget": _of_budget(session_ids),
        "rk.expect": _of_tests(watch.observed()),
    }
    assert list(_differences(all_places, session_ids)) == []
    for (name, tree), session_id in zip(TREES.items(), session_ids, strict=False):
        sums = all_places["the store's pages"][session_id]
        told = (sums.unpriced_count, sums.call_count, sums.tool_call_count, sums.error_count)
        assert told == (tree.unpriced, tree.calls, tree.tools, tree.errors), name
        assert sums.cost_usd == (None if tree.cost_usd is None else pytest.approx(tree.cost_usd)), name


def test_pages_and_reports_word_the_same_sums(store: StoreAddress, watch: SpanWatch) -> None:
    """The list, the session's page, the trace's page, %cost and show agree to the letter."""
    session_id = _make(TREES["an agent that knows less than its calls"].nodes)
    assert rk.flush()
    trace_id = rk.traces_df(session_id)["trace_id"].iloc[0]
    with opened_browser(store) as browser:
        project = f"{enter(browser, store)}/project/{store.project_id}"
        pages = [
            browser.get(f"{project}{path}").text
            for path in ("/sessions", f"/sessions/{session_id}", f"/traces/{trace_id}")
        ]
    for page in pages:
        assert "≥ $0.03" in page
        assert "660" in page
    assert "≥ $0.03" in rk.session_cost(session_id).to_text()
    assert "≥ $0.03" in rk.show(trace_id).to_text()

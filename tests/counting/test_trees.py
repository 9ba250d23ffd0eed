"""What counts in a tree: the table of the documentation, and the same sums in whatever order a tree ends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from counting_trees import TREES, Tree
from hypothesis import given, settings
from hypothesis import strategies as st

from research_kit.counting import Facts, LiveSums, Sums, count, parent_places

_MEASURES = ("cost_usd", "input_tokens", "output_tokens", "total_tokens")
_COUNTS = ("call_count", "unpriced_count", "tool_call_count", "error_count")


def _batch(nodes: list[tuple[int, Facts]]) -> Sums:
    counted = count([facts for _, facts in nodes], [parent for parent, _ in nodes])
    sums = Sums()
    for own in counted:
        flags = dict(zip(_COUNTS, map(int, own[4:]), strict=True))
        sums.add(Sums(**dict(zip(_MEASURES, own[:4], strict=True)), **flags))
    return sums


def _live(nodes: list[tuple[int, Facts]], order: list[int]) -> Sums:
    live, sums = LiveSums(), Sums()
    for place in order:
        parent, facts = nodes[place]
        sums.add(live.end("trace", place, None if parent < 0 else parent, facts))
    return sums


def _told(sums: Sums) -> tuple[object, ...]:
    # What is 0 because everything known was taken back is as unknown as what was never known.
    cost, *tokens = (getattr(sums, name) or None for name in _MEASURES)
    return (
        None if cost is None else pytest.approx(cost, rel=1e-6),
        *tokens,
        *(getattr(sums, name) for name in _COUNTS),
    )


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_trees_count_what_the_table_says(tree: Tree) -> None:
    """Each tree of the table has its numbers."""
    sums = _batch(tree.nodes)
    assert sums.cost_usd == (None if tree.cost_usd is None else pytest.approx(tree.cost_usd))
    assert (sums.total_tokens, sums.call_count, sums.unpriced_count) == (
        tree.tokens,
        tree.calls,
        tree.unpriced,
    )
    assert (sums.tool_call_count, sums.error_count) == (tree.tools, tree.errors)


@st.composite
def _trees(draw: st.DrawFn) -> list[tuple[int, Facts]]:
    kinds = st.sampled_from(["GENERATION", "EMBEDDING", "TOOL", "AGENT", "CHAIN", "SPAN", "RETRIEVER"])
    costs = st.none() | st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.5])
    tokens = st.none() | st.sampled_from([0, 10, 20, 100, 1000])
    nodes = []
    for place in range(draw(st.integers(1, 9))):
        into = draw(tokens)
        out = None if into is None else draw(st.sampled_from([0, 5, 10]))
        whole = None if into is None or out is None else into + out
        name = draw(st.sampled_from(["step", "MCP send tools/call look"]))
        facts = Facts(draw(kinds), name, draw(costs), into, out, whole, draw(st.booleans()))
        nodes.append((draw(st.integers(-1, place - 1)), facts))
    return nodes


@given(nodes=_trees(), seed=st.integers(0, 1000))
@settings(max_examples=400, deadline=None)
def test_a_tree_counts_the_same_in_whatever_order_it_ends(nodes: list[tuple[int, Facts]], seed: int) -> None:
    """Inside first, as spans end, or in any other order: the changes add up to the sums over the whole."""
    expected = _told(_batch(nodes))
    inside_first = list(reversed(range(len(nodes))))
    shuffled = random.Random(seed).sample(inside_first, len(nodes))
    assert _told(_live(nodes, inside_first)) == expected
    assert _told(_live(nodes, shuffled)) == expected


@given(nodes=_trees())
@settings(max_examples=200, deadline=None)
def test_sums_lie_between_the_parts_and_their_total(nodes: list[tuple[int, Facts]]) -> None:
    """Counting once never adds, and never loses more than the largest way to the top repeats."""
    total = sum(facts.cost_usd or 0.0 for _, facts in nodes)
    largest = max((facts.cost_usd or 0.0 for _, facts in nodes), default=0.0)
    counted = _batch(nodes).cost_usd or 0.0
    assert largest * 0.99 - 1e-9 <= counted <= total + 1e-9


def test_parents_in_a_circle_are_cut() -> None:
    """A broken client's circle neither hangs nor loses what is in it."""
    parents = parent_places(["a", "b", "c"], ["b", "a", "a"])
    assert sorted(parents)[0] == -1
    counted = count([Facts("GENERATION", "x", 0.5)] * 3, parents)
    assert sum(own.cost_usd or 0.0 for own in counted) >= 0.5
    live = LiveSums()
    for one, parent in (("a", "b"), ("b", "a")):
        live.end("t", one, parent, Facts("SPAN", "x"))


def test_a_span_that_is_told_twice_counts_once() -> None:
    """The second word on the same observation changes nothing."""
    live = LiveSums()
    assert live.end("t", "a", None, Facts("GENERATION", "x", 0.5)).cost_usd == 0.5
    assert live.end("t", "a", None, Facts("GENERATION", "x", 0.5)) == Sums()


def test_the_table_of_the_documentation_is_this_one() -> None:
    """docs/counting.md shows every tree with the numbers that are tested."""
    text = (Path(__file__).parents[2] / "docs" / "counting.md").read_text()
    for name, tree in TREES.items():
        cost = "–" if tree.cost_usd is None else f"${tree.cost_usd:.7f}".rstrip("0")  # noqa: RUF001
        at_least = "≥ " if tree.unpriced and tree.cost_usd is not None else ""
        tokens = "–" if tree.tokens is None else f"{tree.tokens:,}"  # noqa: RUF001
        row = f"| {name} | {at_least}{cost} | {tokens} | {tree.calls} | {tree.tools} | {tree.errors} |"
        assert row in text, row

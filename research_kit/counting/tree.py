"""What each observation of a tree contributes to a sum.

Owns the one rule of counting; knows no frames, databases and spans. Invariant: what an observation adds to
the sums depends on itself and on what is inside it, so that a tree which is summed up while it ends, and one
that is read back, give the same numbers.

A **call** (a generation, an embedding, a tool, or any other type with a value of its own) counts in full,
unless it repeats what is inside it: the same call seen by two instrumentations. A **container** (an agent, a
chain, a span) counts what it has beyond its parts. docs/counting.md has the rule with examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

__all__ = [
    "Counted",
    "Facts",
    "Sums",
    "close",
    "count",
    "is_lm_type",
    "is_tool_side",
    "parent_places",
    "tool_name",
]

_LM_TYPES = frozenset({"GENERATION", "EMBEDDING"})
_CONTAINERS = frozenset({"AGENT", "CHAIN", "SPAN", "EVENT", ""})
_PLAIN = frozenset({"SPAN", ""})
_TOOL = "TOOL"
# How MCP's SDK and conventions name the client's span of a call, which carries no type.
_MCP_CALLS = ("MCP send tools/call ", "tools/call ")
# Two instrumentations of one call may round differently, and count a few tokens of the frame around a prompt.
_SAME = 0.01
# A remainder that is only the error of adding floating-point numbers.
_ROUNDING = 1e-9


class Facts(NamedTuple):
    """One observation, as far as counting looks at it.

    Attributes:
        type: Langfuse's type in capitals, as ``GENERATION``; empty for none.
        name: Its name, by which the client's side of an MCP tool call is known.
        cost_usd: What it cost, in US dollars; None when unknown.
        input_tokens: Tokens sent; None when unknown.
        output_tokens: Tokens answered; None when unknown.
        total_tokens: All tokens; None when unknown.
        is_error: Whether it failed.
    """

    type: str
    name: str = ""
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    is_error: bool = False


class Counted(NamedTuple):
    """What one observation adds to the sums.

    Attributes:
        cost_usd: US dollars; None when it adds nothing, or nothing that is known.
        input_tokens: Tokens; None as for the cost.
        output_tokens: Tokens; None as for the cost.
        total_tokens: Tokens; None as for the cost.
        is_call: Whether it is one LM call.
        is_unpriced: Whether it is an LM call whose cost is in no sum, so that sums say "at least".
        is_tool_call: Whether it is one tool call; the server's side of it is the same one.
        is_error: Whether an error arose in it, and did not only pass through.
    """

    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    is_call: bool
    is_unpriced: bool
    is_tool_call: bool
    is_error: bool


def is_lm_type(kind: str) -> bool:
    """Whether observations of a type are calls of a language or embedding model."""
    return kind in _LM_TYPES


@dataclass(slots=True, kw_only=True)
class Sums:
    """The sums over some observations; a measure is None while nothing of it is known.

    Attributes:
        cost_usd: US dollars.
        input_tokens: Tokens sent.
        output_tokens: Tokens answered.
        total_tokens: All tokens.
        call_count: LM calls.
        unpriced_count: LM calls whose cost is missing in ``cost_usd``.
        tool_call_count: Tool calls.
        error_count: Errors, where they arose.
        outer_tool_count: Tool calls that a tool right around these observations would be one with.
    """

    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    call_count: int = 0
    unpriced_count: int = 0
    tool_call_count: int = 0
    error_count: int = 0
    outer_tool_count: int = 0

    def add(self, other: Sums) -> None:
        """Add ``other`` to this one."""
        for name in _SUM_NAMES:
            value = getattr(other, name)
            if value is not None:
                setattr(self, name, (getattr(self, name) or 0) + value)

    def minus(self, other: Sums) -> Sums:
        """Return the difference; what is not known here is not known there."""
        difference = Sums()
        for name in _SUM_NAMES:
            value = getattr(self, name)
            setattr(difference, name, None if value is None else value - (getattr(other, name) or 0))
        return difference

    def copy(self) -> Sums:
        """Return another one with the same numbers."""
        return replace(self)


_SUM_NAMES = tuple(field.name for field in fields(Sums))
_MEASURES = ("cost_usd", "input_tokens", "output_tokens", "total_tokens")
_NOTHING_INSIDE = Sums()


class _Own(NamedTuple):
    """What an observation adds by itself, before anything around it is known."""

    measures: tuple[float | None, ...]
    is_call: bool
    is_unpriced: bool
    covers: bool


def close(facts: Facts, inside: Sums = _NOTHING_INSIDE) -> Sums:
    """Return the sums over an observation and everything inside it.

    Args:
        facts: The observation.
        inside: The sums over what is inside, each subtree closed by this function and added up.
    """
    return _closed(facts, _own(facts, inside), inside)


def count(observations: Sequence[Facts], parents: Sequence[int]) -> list[Counted]:
    """Return what each observation adds, in the same order.

    Args:
        observations: Complete traces, in any order.
        parents: For each the place of its parent, -1 without one; no circles (see `parent_places`).
    """
    order = _from_the_top(parents)
    sums: list[Sums | None] = [None] * len(parents)
    own: list[_Own | None] = [None] * len(parents)
    is_failed_inside = [False] * len(parents)
    for place in reversed(order):
        inside = sums[place] or _NOTHING_INSIDE
        found = own[place] = _own(observations[place], inside)
        is_failed_inside[place] = inside.error_count > 0
        parent = parents[place]
        if parent >= 0:
            closed = _closed(observations[place], found, inside)
            around = sums[parent]
            if around is None:
                sums[parent] = closed
            else:
                around.add(closed)
    return _counted(observations, parents, order, own, is_failed_inside)


def parent_places(ids: Sequence[object], parent_ids: Sequence[object]) -> list[int]:
    """Return for each observation the place of its parent, -1 when there is none among ``ids``.

    Parents that lead in a circle, as a broken client may send them, are cut where the circle closes.

    Args:
        ids: What tells an observation from all others, such as trace id and observation id.
        parent_ids: The same of each one's parent.
    """
    places = {one: place for place, one in enumerate(ids)}
    return _without_circles([places.get(one, -1) for one in parent_ids])


def is_tool_side(kind: str, name: str) -> bool:
    """Whether an observation is a tool call, or one of the two sides of one."""
    return kind == _TOOL or (kind in _PLAIN and name.startswith(_MCP_CALLS))


def tool_name(name: str) -> str:
    """Return the tool that an observation named ``name`` calls."""
    prefix = next((prefix for prefix in _MCP_CALLS if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def _own(facts: Facts, inside: Sums) -> _Own:
    is_lm = facts.type in _LM_TYPES
    repeats = _repeats(facts, inside, is_lm=is_lm)
    if facts.type in _CONTAINERS or repeats:
        measures = tuple(
            _beyond(mine, theirs, is_same=repeats)
            for mine, theirs in zip(facts[2:6], _measures(inside), strict=True)
        )
        covers = bool(measures[0])
    else:
        measures, covers = facts[2:6], False
    is_call = is_lm and not repeats
    return _Own(measures, is_call, is_call and facts.cost_usd is None, covers)


def _measures(sums: Sums) -> tuple[float | None, ...]:
    return sums.cost_usd, sums.input_tokens, sums.output_tokens, sums.total_tokens


def _repeats(facts: Facts, inside: Sums, *, is_lm: bool) -> bool:
    """Whether a call is what is inside it, seen once more."""
    if facts.type in _CONTAINERS or (is_lm and not inside.call_count):
        return False
    pairs = ((facts.cost_usd, inside.cost_usd), (facts.total_tokens, inside.total_tokens))
    known = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
    if not known:
        # An LM call in another one, of which one tells nothing, is the usual wrapper.
        return is_lm
    return any(_is_same(mine, theirs) for mine, theirs in known)


def _is_same(mine: float, theirs: float) -> bool:
    return abs(mine - theirs) <= _SAME * max(abs(mine), abs(theirs))


def _beyond(mine: float | None, theirs: float | None, *, is_same: bool) -> float | None:
    """Return what is left of ``mine`` without what is inside; None for nothing."""
    if mine is None or theirs is None:
        return mine
    rest = mine - theirs
    bound = (_SAME if is_same else _ROUNDING) * max(abs(mine), abs(theirs))
    return rest if rest > bound else None


def _closed(facts: Facts, own: _Own, inside: Sums) -> Sums:
    cost, into, out, total = (_plus(a, b) for a, b in zip(_measures(inside), own.measures, strict=True))
    is_tool = is_tool_side(facts.type, facts.name)
    return Sums(
        cost_usd=cost,
        input_tokens=into,  # type: ignore[arg-type]
        output_tokens=out,  # type: ignore[arg-type]
        total_tokens=total,  # type: ignore[arg-type]
        call_count=inside.call_count + own.is_call,
        unpriced_count=0 if own.covers else inside.unpriced_count + own.is_unpriced,
        tool_call_count=inside.tool_call_count + (1 - inside.outer_tool_count if is_tool else 0),
        error_count=inside.error_count or int(facts.is_error),
        # Through plain spans: what a server's framework puts between the two sides of a call.
        outer_tool_count=1 if is_tool else inside.outer_tool_count if facts.type in _PLAIN else 0,
    )


def _plus(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else a + b


def _counted(
    observations: Sequence[Facts],
    parents: Sequence[int],
    order: Sequence[int],
    own: Sequence[_Own | None],
    is_failed_inside: Sequence[bool],
) -> list[Counted]:
    """Return the results, with what only the observations around each one tell."""
    is_covered, is_in_tool = [False] * len(parents), [False] * len(parents)
    results: list[Counted | None] = [None] * len(parents)
    for place in order:
        facts, mine, parent = observations[place], own[place], parents[place]
        assert mine is not None
        if parent >= 0:
            around = own[parent]
            is_covered[place] = is_covered[parent] or (around is not None and around.covers)
            above = observations[parent]
            is_in_tool[place] = is_tool_side(above.type, above.name) or (
                above.type in _PLAIN and is_in_tool[parent]
            )
        cost, into, out, total = mine.measures
        results[place] = Counted(
            cost,
            into,  # type: ignore[arg-type]
            out,  # type: ignore[arg-type]
            total,  # type: ignore[arg-type]
            mine.is_call,
            mine.is_unpriced and not is_covered[place],
            is_tool_side(facts.type, facts.name) and not is_in_tool[place],
            facts.is_error and not is_failed_inside[place],
        )
    return results  # type: ignore[return-value]


def _from_the_top(parents: Sequence[int]) -> list[int]:
    """Return all places, parents before their children."""
    children: dict[int, list[int]] = {}
    for place, parent in enumerate(parents):
        children.setdefault(parent, []).append(place)
    order = children.pop(-1, [])
    for place in order:  # grows while it is read
        order.extend(children.pop(place, ()))
    return order


def _without_circles(parents: list[int]) -> list[int]:
    """Cut the last step of parents that lead back to where they began."""
    done = [False] * len(parents)
    for start in range(len(parents)):
        path: dict[int, None] = {}
        row = start
        while row >= 0 and not done[row] and row not in path:
            path[row] = None
            row = parents[row]
        if row in path:
            parents[next(reversed(path))] = -1
        for passed in path:
            done[passed] = True
    return parents

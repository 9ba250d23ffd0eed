"""Small trees of observations and what they count, the table of docs/counting.md."""

from __future__ import annotations

from typing import NamedTuple

from research_kit.counting import Facts

__all__ = ["TREES", "Tree"]


class Tree(NamedTuple):
    """Observations, each with the place of its parent, and the sums over them.

    Attributes:
        nodes: Place of the parent (-1 for a root) and what the observation is.
        cost_usd: The sum of the costs; None when none is known.
        tokens: The sum of the tokens; None when none are known.
        calls: LM calls.
        unpriced: LM calls whose cost is missing in the sum.
        tools: Tool calls.
        errors: Errors.
    """

    nodes: list[tuple[int, Facts]]
    cost_usd: float | None
    tokens: int | None
    calls: int
    unpriced: int = 0
    tools: int = 0
    errors: int = 0


def _lm(cost: float | None = None, into: int | None = None, out: int = 0, kind: str = "GENERATION") -> Facts:
    tokens = (None, None, None) if into is None else (into, out, into + out)
    return Facts(kind, "call", cost, *tokens)


def _agent(cost: float | None = None, into: int | None = None, out: int = 0) -> Facts:
    return _lm(cost, into, out, "AGENT")


def _tool(name: str = "tool", cost: float | None = None, *, is_error: bool = False) -> Facts:
    return Facts("TOOL", name, cost, is_error=is_error)


_SPAN = Facts("SPAN", "step")

TREES: dict[str, Tree] = {
    "one call": Tree([(-1, _lm(0.01, 100, 10))], 0.01, 110, 1),
    "a call of unknown cost": Tree([(-1, _lm(None, 100, 10))], None, 110, 1, unpriced=1),
    "the same call seen twice": Tree([(-1, _lm(0.01, 100, 50)), (0, _lm(0.01, 100, 50))], 0.01, 150, 1),
    "the same call, priced by the outer one only": Tree(
        [(-1, _lm(0.5, 280, 20)), (0, _lm(None, 280, 20))], 0.5, 300, 1
    ),
    "the same call, seen without usage inside": Tree([(-1, _lm(0.5, 280, 20)), (0, _lm())], 0.5, 300, 1),
    "an agent that repeats its calls": Tree(
        [(-1, _SPAN), (0, _agent(0.03, 300, 30)), (1, _lm(0.01, 100, 10)), (1, _lm(0.02, 200, 20))],
        0.03,
        330,
        2,
    ),
    "an agent that knows more than its calls": Tree(
        [(-1, _agent(0.10)), (0, _lm(0.03, 100, 10)), (0, _lm(None, 500, 50))], 0.10, 660, 2
    ),
    "an agent that knows less than its calls": Tree(
        [(-1, _agent(0.03)), (0, _lm(0.03, 100, 10)), (0, _lm(None, 500, 50))], 0.03, 660, 2, unpriced=1
    ),
    "a call that embeds its question": Tree(
        [(-1, _lm(0.035, 10_000, 1_000)), (0, _lm(0.0000004, 20, 0, "EMBEDDING"))], 0.0350004, 11_020, 2
    ),
    "a call whose tool asks another model": Tree(
        [(-1, _lm(0.02, 1_000, 100)), (0, _tool()), (1, _lm(0.001, 100, 10))], 0.021, 1_210, 2, tools=1
    ),
    "a paid tool with a call inside": Tree(
        [(-1, _tool("search", 0.05)), (0, _lm(0.001, 100, 10))], 0.051, 110, 1, tools=1
    ),
    "a session whose only cost is a tool": Tree(
        [(-1, _SPAN), (0, _tool("search", 0.05))], 0.05, None, 0, tools=1
    ),
    "a paid tool beside a call": Tree(
        [(-1, _SPAN), (0, _tool("search", 0.25)), (0, _lm(0.5, 100, 10))], 0.75, 110, 1, tools=1
    ),
    "a tool that is a sub-agent": Tree(
        [(-1, _tool("ask")), (0, _agent()), (1, _tool("look")), (1, _tool("look"))], None, None, 0, tools=3
    ),
    "both sides of an MCP call": Tree(
        [(-1, _tool("look")), (0, Facts("SPAN", "MCP send tools/call look")), (1, _tool("look"))],
        None,
        None,
        0,
        tools=1,
    ),
    "an MCP call to a server that is not traced": Tree(
        [(-1, _SPAN), (0, Facts("SPAN", "MCP send tools/call look"))], None, None, 0, tools=1
    ),
    "an error that passes through its parents": Tree(
        [(-1, Facts("SPAN", "root", is_error=True)), (0, Facts("AGENT", "a", is_error=True)),
         (1, _tool("look", is_error=True))],
        None, None, 0, tools=1, errors=1,
    ),
    "two errors": Tree(
        [(-1, _SPAN), (0, _tool("a", is_error=True)), (0, _tool("b", is_error=True))],
        None, None, 0, tools=2, errors=2,
    ),
}  # fmt: skip

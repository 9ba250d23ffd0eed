"""A trace as rows with bars: where its time went.

Owns the drawing of one `TraceTree`; reads nothing. Invariant: every text of an observation is escaped, and
bars stay within their track.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from research_kit._words import cost_text, count_text, duration_text
from research_kit.store.markup import Markup, element, fragment
from research_kit.views.nodes import Node, TraceTree
from research_kit.views.texts import plain_line, shortened, structure_of

__all__ = ["contents", "spaced", "text_rows", "waterfall"]

_MAX_INDENT = 12
_TEXT_WIDTH = 30
_NAME_WIDTH = 38
_TICKS = 5


def waterfall(tree: TraceTree, *, max_rows: int, has_contents: bool) -> Markup:
    """Return the axis and one row per observation.

    Args:
        tree: The trace.
        max_rows: How many observations to show at most, the first ones.
        has_contents: Whether a row opens to inputs and outputs.
    """
    whole_s = tree.duration_s or 0.001
    step_s = _nice_step(whole_s)
    rows = [_row(node, whole_s, has_contents) for node in islice(tree.nodes, max_rows)]
    hidden = len(tree.nodes) - len(rows)
    note = element("p", f"… {hidden:,} more observations; raise max_rows.", class_="rk-note")
    body = element("div", _axis(whole_s, step_s), *rows, style=f"--rk-step: {100 * step_s / whole_s:.3f}%")
    return fragment(body, note if hidden > 0 else None)


def contents(node: Node) -> list[Markup]:
    """Return what an observation took and gave, and what went wrong."""
    values = node.values
    parts = [_problem(node)]
    for label, value in (("input", values["input"]), ("output", values["output"])):
        if value is not None:
            parts += [element("div", label, class_="rk-label"), _text(structure_of(value))]
    if values["metadata"]:
        summary = element("summary", element("span", "metadata", class_="rk-name rk-label"))
        parts.append(element("details", summary, _text(structure_of(values["metadata"]))))
    shown = [part for part in parts if part is not None]
    return shown or [element("p", "Nothing was recorded.", class_="rk-note")]


def text_rows(trees: Sequence[TraceTree], *, max_rows: int) -> list[str]:
    """Return the same rows as lines of text."""
    lines = []
    for tree in trees:
        for node in islice(tree.nodes, max_rows):
            name = plain_line("  " * min(node.depth, _MAX_INDENT) + f"{node.kind} {node.name}", 10_000)
            indent = "  " * min(node.depth, _MAX_INDENT)
            label = plain_line(name, _NAME_WIDTH - len(indent))
            parts = [(indent + label).ljust(_NAME_WIDTH), f"|{_text_bar(node, tree.duration_s)}|"]
            parts += [
                duration_text(node.length_s).rjust(9),
                _usage(node),
                "FAILED" if node.has_failed else "",
            ]
            lines.append(" ".join(parts).rstrip())
        if len(tree.nodes) > max_rows:
            lines.append(f"… {len(tree.nodes) - max_rows:,} more observations; raise max_rows.")
    return lines


def spaced(parts: Sequence[Markup]) -> list[Markup]:
    """Keep words apart also where a page drops the style sheet, as a notebook that is not trusted does."""
    return [fragment(part, " ") for part in parts]


def _row(node: Node, whole_s: float, has_contents: bool) -> Markup:
    values = node.values
    failed = " rk-failed" if node.has_failed else ""
    cells = [
        _name(node),
        _bar(node, whole_s),
        element("span", duration_text(node.length_s), class_="rk-number"),
        element("span", _tokens(node), class_="rk-number rk-muted rk-wide"),
        element("span", _cost(values["cost_usd"]), class_="rk-number rk-muted rk-wide"),
    ]
    inside = element("div", *_facts(node), *(contents(node) if has_contents else ()), class_="rk-open")
    return element(
        "details",
        element("summary", *spaced(cells), class_="rk-row"),
        inside,
        class_=f"rk-k-{_kind(node)}{failed}",
    )


def _name(node: Node) -> Markup:
    indent = 14 * min(node.depth, _MAX_INDENT)
    model = node.values["model"]
    return element(
        "span",
        element("span", class_="rk-dot"),
        " ",
        element("b", node.name, title=node.name),
        " ",
        element("small", model) if model and model != node.name else None,
        element("small", " failed", class_="rk-bad") if node.has_failed else None,
        class_="rk-name",
        style=f"padding-left: {indent}px",
    )


def _bar(node: Node, whole_s: float) -> Markup:
    left = min(max(node.offset_s / whole_s, 0.0), 1.0)
    width = min((node.length_s or 0.0) / whole_s, 1.0 - left)
    wait_s, length_s = node.values["time_to_first_token_s"], node.length_s
    waited = (
        element("i", style=f"width: {100 * min(wait_s / length_s, 1.0):.1f}%")
        if wait_s and length_s
        else None
    )
    place = f"left: min({100 * left:.2f}%, 100% - 3px); width: {100 * width:.2f}%"
    bar = element("span", waited, class_="rk-bar", style=place)
    title = f"{node.kind}, from {duration_text(node.offset_s)}, for {duration_text(node.length_s)}"
    return element("span", bar, class_="rk-track", title=title)


def _facts(node: Node) -> list[Markup]:
    values = node.values
    wait_s, tokens, length_s = values["time_to_first_token_s"], values["output_tokens"], node.length_s
    speed = f"{tokens / length_s:.3g}" if tokens and length_s else None
    facts = [
        ("type", node.kind),
        ("began after", duration_text(node.offset_s)),
        ("first token after", duration_text(wait_s) if wait_s is not None else None),
        ("tokens", _tokens(node) or None),
        ("output tokens per second", speed),
        ("cost", _cost(values["cost_usd"]) or None),
    ]
    text = " · ".join(f"{name} {value}" for name, value in facts if value is not None)
    return [element("div", text, class_="rk-label")]


def _problem(node: Node) -> Markup | None:
    message = node.values["status_message"]
    if not message and not node.has_failed:
        return None
    text = shortened(message or "It failed, and no reason was recorded.")
    return element("div", text, class_="rk-error" if node.has_failed else "rk-note")


def _text(text: str) -> Markup:
    return element("pre", shortened(text), class_="rk-text")


def _axis(whole_s: float, step_s: float) -> Markup:
    ticks = [
        element(
            "span",
            duration_text(number * step_s) if number else "0",
            style=f"left: {100 * number * step_s / whole_s:.2f}%",
        )
        for number in range(int(whole_s / step_s * 1.0001) + 1)
        if number * step_s <= 0.93 * whole_s
    ]
    return element(
        "div",
        *spaced(
            [
                element("span", "observation"),
                element("span", *spaced(ticks), class_="rk-ticks"),
                element("span", "time", class_="rk-number"),
                element("span", "tokens", class_="rk-number rk-wide"),
                element("span", "cost", class_="rk-number rk-wide"),
            ]
        ),
        class_="rk-axis",
    )


def _nice_step(whole_s: float) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that gives at most so many ticks."""
    power = 10.0 ** math.floor(math.log10(whole_s / _TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS >= whole_s * 0.9999)


def _kind(node: Node) -> str:
    # Types come from the wire: only letters may be in the name of a class.
    return node.kind if node.kind.isascii() and node.kind.isalpha() else "other"


def _tokens(node: Node) -> str:
    into, out = node.values["input_tokens"], node.values["output_tokens"]
    return "" if into is None and out is None else f"{count_text(into)} → {count_text(out)}"


def _cost(cost_usd: float | None) -> str:
    return "" if cost_usd is None else cost_text(cost_usd)


def _usage(node: Node) -> str:
    return "  ".join(filter(None, [_tokens(node), _cost(node.values["cost_usd"])]))


def _text_bar(node: Node, duration_s: float) -> str:
    whole_s = duration_s or 0.001
    first = min(int(max(node.offset_s / whole_s, 0.0) * _TEXT_WIDTH), _TEXT_WIDTH - 1)
    length = max(round((node.length_s or 0.0) / whole_s * _TEXT_WIDTH), 1)
    return (" " * first + "█" * length)[:_TEXT_WIDTH].ljust(_TEXT_WIDTH)

"""One turn of a session: a chat message, a cell, or any other trace.

Owns what of a trace a reader of the conversation sees. Invariant: what a model answered is shown as sanitised
Markdown, and every other text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from research_kit._words import UNKNOWN, cost_text, duration_text, tokens_text
from research_kit.chat.markdown import render_markdown
from research_kit.plain_text import plain_text
from research_kit.store.markup import Markup, element, fragment
from research_kit.store.prose import prose_of
from research_kit.traces.rollup import MESSAGE_NAME
from research_kit.views.nodes import Node, TraceTree
from research_kit.views.texts import (
    known,
    pause_text,
    plain_line,
    shortened,
    structure_of,
    time_text,
)
from research_kit.views.waterfall import contents, waterfall

__all__ = ["Score", "Scores", "pause_before", "turn", "turn_text"]

_PAUSE_S = 120.0
_MAX_STEPS = 50
_MAX_ROWS = 200
_STEP_KINDS = ("retriever", "event", "guardrail", "evaluator")


class Score(NamedTuple):
    """A judgement: its name, its value as text, whether it is good or bad if it says so, and a remark."""

    name: str
    text: str
    tone: str
    comment: str | None


class Scores:
    """The scores of a session, by what they judge."""

    def __init__(self, frame: pd.DataFrame | None) -> None:
        self._by_subject: dict[tuple[str, str], list[Score]] = {}
        for row in [] if frame is None else frame.to_dict("records"):
            kind = str(known(row["subject"]) or "")
            subject_id = known(row.get(f"{kind}_id"))
            self._by_subject.setdefault((kind, str(subject_id or "")), []).append(_score(row))

    def of_sessions(self, session_ids: Iterable[str]) -> list[Score]:
        """Return what judges whole sessions."""
        return [score for found in session_ids for score in self._by_subject.get(("session", found), [])]

    def of_trace(self, tree: TraceTree) -> list[Score]:
        """Return what judges a trace or an observation in it."""
        keys = [
            ("trace", tree.trace_id),
            *(("observation", node.values["observation_id"]) for node in tree.nodes),
        ]
        return [score for key in keys for score in self._by_subject.get(key, [])]


def turn(tree: TraceTree, scores: Scores) -> Markup:
    """Return what was asked, done and answered."""
    root = tree.root
    steps = _steps(tree)
    return element(
        "div",
        _head(tree),
        _asked(root),
        *map(_step, steps[:_MAX_STEPS]),
        element("p", f"… {len(steps) - _MAX_STEPS:,} more steps", class_="rk-note")
        if len(steps) > _MAX_STEPS
        else None,
        _answered(root),
        _problem(root),
        _foot(tree, scores.of_trace(tree)),
        class_="rk-turn",
    )


def turn_text(tree: TraceTree, scores: Scores) -> str:
    """Return the same as text."""
    root = tree.root
    lines = [f"── {_title(tree)} · {time_text(tree.start_time)}"]
    lines += _said("asked", root.values["input"])
    lines += [
        f"  {node.kind} {plain_line(node.name, 40)}({plain_line(_arguments(node), 60)}) "
        f"{duration_text(node.length_s)}{' FAILED' if node.has_failed else ''}"
        for node in _steps(tree)[:_MAX_STEPS]
    ]
    lines += _said("answered", root.values["output"])
    if root.values["status_message"]:
        lines.append(f"  ! {plain_line(root.values['status_message'], 200)}")
    judged = [f"{score.name} {score.text}" for score in scores.of_trace(tree)]
    lines.append("  " + " · ".join([*_figures(tree), *map(plain_text, judged)]))
    return "\n".join(lines)


def pause_before(tree: TraceTree, before: TraceTree | None) -> Markup | None:
    """Return a line that says how long nothing happened; None for a short while."""
    if before is None:
        return None
    pause_s = (tree.start_time - before.end_time).total_seconds()
    return element("div", pause_text(pause_s), class_="rk-pause") if pause_s >= _PAUSE_S else None


def _head(tree: TraceTree) -> Markup:
    return element(
        "div", element("b", _title(tree)), " ", element("time", time_text(tree.start_time)), class_="rk-head"
    )


def _title(tree: TraceTree) -> str:
    metadata = tree.root.values["metadata"]
    number = metadata.get("message_number") if isinstance(metadata, dict) else None
    is_message = tree.root.name == MESSAGE_NAME and number is not None
    return plain_line(f"message {number}" if is_message else tree.name, 120)


def _steps(tree: TraceTree) -> list[Node]:
    """Return what is worth a line: tools and the like; without a conversation also the LM calls."""
    has_answer = tree.root.values["output"] is not None
    return [
        node
        for node in tree.nodes
        if node is not tree.root
        and (node.is_tool_call or node.kind in _STEP_KINDS or (node.is_call and not has_answer))
    ]


def _asked(root: Node) -> Markup | None:
    value = root.values["input"]
    if value is None:
        return None
    prose = prose_of(value)
    if prose is None:
        return element("pre", shortened(structure_of(value)), class_="rk-text")
    return element("div", shortened(prose), class_="rk-asked")


def _answered(root: Node) -> Markup | None:
    value = root.values["output"]
    if value is None:
        return None
    prose = prose_of(value)
    if prose is None:
        return element("pre", shortened(structure_of(value)), class_="rk-text")
    return element("div", Markup(render_markdown(prose)), class_="rk-answered")


def _step(node: Node) -> Markup:
    summary = element(
        "summary",
        element(
            "span",
            element("span", class_="rk-dot"),
            " ",
            element("b", node.name),
            class_="rk-name",
        ),
        " ",
        element("span", plain_line(_arguments(node), 160), class_="rk-args"),
        element("span", "failed", class_="rk-bad") if node.has_failed else None,
        " ",
        element("span", duration_text(node.length_s), class_="rk-number"),
    )
    kind = "tool" if node.is_tool_call else "generation" if node.is_call else "retriever"
    inside = element("div", *contents(node), class_="rk-open")
    return element("details", summary, inside, class_=f"rk-step rk-k-{kind}")


def _arguments(node: Node) -> str:
    """Return what a tool was called with, as it would stand between the brackets of a call."""
    value = node.values["input"]
    if isinstance(value, dict):
        inner = value.get("arguments", value)
        if isinstance(inner, dict):
            return ", ".join(f"{key}={_short(part)}" for key, part in inner.items())
    return "" if value is None else plain_line(prose_of(value) or structure_of(value), 160)


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, str) else structure_of(value)


def _problem(root: Node) -> Markup | None:
    message = root.values["status_message"]
    if not message:
        return None
    return element("div", shortened(message), class_="rk-error" if root.has_failed else "rk-note")


def _foot(tree: TraceTree, scores: Sequence[Score]) -> Markup:
    figures = [element("span", figure) for figure in _figures(tree)]
    judged = [
        element(
            "span",
            f"{score.name} {score.text}" + (f" · {plain_line(score.comment, 80)}" if score.comment else ""),
            class_=f"rk-score{score.tone}",
            title=score.comment if score.comment else None,
        )
        for score in scores
    ]
    parts = [fragment(part, " ") for part in (*figures, *judged)]
    summary = element("summary", element("span", figures[0], class_="rk-name"), " ", *parts[1:])
    rows = waterfall(tree, max_rows=_MAX_ROWS, has_contents=False)
    return element("details", summary, element("div", rows, class_="rk-open"), class_="rk-foot")


def _figures(tree: TraceTree) -> list[str]:
    found = [duration_text(tree.duration_s)]
    if tree.input_tokens is not None or tree.output_tokens is not None:
        found.append(tokens_text(tree.input_tokens, tree.output_tokens))
    if tree.cost_usd is not None or tree.unpriced_count:
        cost = cost_text(tree.cost_usd, tree.unpriced_count)
        found.append("unknown cost" if cost == UNKNOWN else cost)
    if tree.call_count:
        found.append(f"{tree.call_count} LM call{'' if tree.call_count == 1 else 's'}")
    return found


def _said(who: str, value: Any) -> list[str]:
    if value is None:
        return []
    text = shortened(prose_of(value) or structure_of(value))
    first, *rest = text.split("\n")
    return [f"  {who}: {first}", *(f"    {line}" for line in rest)]


def _score(row: dict[Any, Any]) -> Score:
    value, text = known(row["value"]), known(row["text_value"])
    comment = known(row["comment"])
    if known(row["data_type"]) == "BOOLEAN":
        return Score(
            str(known(row["name"]) or ""),
            "yes" if value else "no",
            " rk-up" if value else " rk-down",
            comment,
        )
    return Score(
        str(known(row["name"]) or ""),
        f"{value:.3g}" if text is None and value is not None else text or "",
        "",
        comment,
    )

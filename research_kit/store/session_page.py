"""The replay of one session: every trace in order, with what was asked, done and answered.

Owns this one page; the rows come from `page_rows`. Invariant: a tool call appears once, however many programs
reported it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from research_kit._words import count_text, duration_text
from research_kit.counting import Sums
from research_kit.store.jsontext import parse_or_text
from research_kit.store.markup import Child, Markup, element
from research_kit.store.page_frame import (
    badge,
    copied,
    cost_element,
    document,
    facts,
    score_chips,
    session_path,
    sessions_path,
    tag_chips,
    time_element,
    trace_path,
)
from research_kit.store.page_rows import MAX_OBSERVATIONS, Score, ShownObservation, ShownTrace
from research_kit.store.page_sums import SessionSummary
from research_kit.store.prose import shown, shown_json

__all__ = ["session_page"]

_MAX_PREVIEW_CHARACTERS = 120


def session_page(
    project_id: str, summary: SessionSummary, traces: Sequence[ShownTrace], scores: Sequence[Score]
) -> str:
    """Make the replay."""
    session_id = summary.session_id
    turns = [
        _turn(project_id, number, trace, [score for score in scores if score.trace_id == trace.trace_id])
        for number, trace in enumerate(traces, 1)
    ]
    is_cut = sum(len(trace.observations) for trace in traces) >= MAX_OBSERVATIONS
    note = f"Only the first {MAX_OBSERVATIONS:,} observations are shown; the sums are over all of them."
    path = sessions_path(project_id)
    return document(
        f"Session {session_id}",
        element("h1", "Session ", copied(session_id)),
        element("p", note, class_="note") if is_cut else None,
        element(
            "div",
            element("ol", *turns, class_="turns"),
            _summary(summary, [score for score in scores if score.trace_id is None]),
            class_="columns",
        ),
        way=[
            element("a", "Sessions", href=path),
            element("a", session_id, href=session_path(project_id, session_id)),
        ],
    )


def _summary(summary: SessionSummary, scores: Sequence[Score]) -> Markup:
    sums = summary.sums
    errors = element("span", f"{sums.error_count:,}", class_="chip bad") if sums.error_count else "0"
    pairs: list[tuple[str, Child]] = [
        ("user", summary.user_id or "unknown"),
        ("began", time_element(summary.start_ms)),
        ("duration", duration_text((summary.end_ms - summary.start_ms) / 1000)),
        ("traces", f"{summary.trace_count:,}"),
        ("tokens", count_text(sums.total_tokens)),
        ("in → out", f"{count_text(sums.input_tokens)} → {count_text(sums.output_tokens)}"),
        ("cost", cost_element(sums.cost_usd, sums.unpriced_count)),
        ("errors", errors),
    ]
    if summary.models:
        pairs.append(("models", ", ".join(summary.models)))
    if summary.all_tags:
        pairs.append(("tags", tag_chips(summary.all_tags)))
    if scores:
        pairs.append(("scores", score_chips(scores)))
    return element("aside", facts(*pairs, class_="sheet"), class_="card")


def _turn(project_id: str, number: int, trace: ShownTrace, scores: Sequence[Score]) -> Markup:
    root = trace.root
    heading = element(
        "header",
        element("span", f"{number}", class_="count"),
        element("h2", element("a", trace.name, href=trace_path(project_id, trace.trace_id))),
        element("span", "failed", class_="chip bad") if root.level == "ERROR" else None,
        time_element(trace.start_ms),
    )
    counting = trace.counted()
    steps = [_step(found) for found in counting.steps() if found is not root]
    return element(
        "li",
        heading,
        _said("asked", root.input),
        element("div", *steps, class_="steps") if steps else None,
        _said("answered", root.output),
        problem(root),
        element("div", *_figures(trace, counting.sums), *score_chips(scores), class_="figures"),
        class_="turn card",
    )


def _figures(trace: ShownTrace, sums: Sums) -> list[Markup]:
    models = sorted({found.model for found in trace.observations} - {""})
    figures = [
        ("latency", duration_text(trace.latency_s)),
        ("tokens", count_text(sums.total_tokens)),
        ("cost", cost_element(sums.cost_usd, sums.unpriced_count)),
    ]
    return [
        *(element("span", f"{name} ", element("b", value)) for name, value in figures),
        *(element("span", model, class_="model") for model in models),
    ]


def _said(who: str, raw: str | None) -> Markup | None:
    return element("div", shown(raw), class_=f"said {who}") if raw else None


def _step(found: ShownObservation) -> Markup:
    is_error = found.level == "ERROR"
    summary = element(
        "summary",
        badge(found.type),
        element("span", found.name, class_="name"),
        element("span", _preview(found.input), class_="preview"),
        element("span", "failed", class_="chip bad") if is_error else None,
        element("span", duration_text((found.end_ms - found.start_ms) / 1000), class_="duration"),
    )
    parts = [("Input", found.input), ("Output", found.output)]
    content: list[Child] = [
        [element("h3", name), shown_json(parse_or_text(raw))] for name, raw in parts if raw
    ]
    if not content:
        content = [element("p", "Nothing was recorded.", class_="note")]
    return element("details", summary, content, problem(found), class_=f"step{' failed' if is_error else ''}")


def _preview(raw: str | None) -> str:
    """Return the arguments of a call on one line."""
    value = parse_or_text(raw) if raw else None
    if isinstance(value, dict):
        parts = [f"{name}={json.dumps(part, ensure_ascii=False)}" for name, part in value.items()]
        text = ", ".join(parts)
    else:
        text = "" if value is None else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_PREVIEW_CHARACTERS else f"{text[:_MAX_PREVIEW_CHARACTERS]}…"


def problem(found: ShownObservation) -> Markup | None:
    """Show what went wrong, or what else the observation says of itself."""
    if not found.status_message:
        return None
    return element("p", found.status_message, class_="error" if found.level == "ERROR" else "note")

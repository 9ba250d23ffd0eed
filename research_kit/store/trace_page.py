"""The tree of one trace, with a bar for the time of each observation.

Owns this one page; the rows come from `page_rows`. Invariant: every observation is one line, below its
parent.
"""

from __future__ import annotations

from collections.abc import Sequence

from research_kit._words import count_text, duration_text
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
    time_element,
    trace_path,
)
from research_kit.store.page_rows import Score, ShownObservation, ShownTrace, tree_order
from research_kit.store.prose import Message, read_messages, shown_json, shown_markdown
from research_kit.store.session_page import problem

__all__ = ["trace_page"]

_BAR_WIDTH = 1000
_MIN_BAR = 4
_MAX_DEPTH = 20
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_OPEN_MESSAGES = 2


def trace_page(project_id: str, trace: ShownTrace, scores: Sequence[Score]) -> str:
    """Make the tree."""
    session_id = next((found.session_id for found in trace.observations if found.session_id), "")
    user_id = next((found.user_id for found in trace.observations if found.user_id), "")
    lines = [_line(trace, depth, found, scores) for depth, found in tree_order(trace)]
    way: list[Child] = [element("a", "Sessions", href=sessions_path(project_id))]
    if session_id:
        way.append(element("a", session_id, href=session_path(project_id, session_id)))
    way.append(element("a", trace.name, href=trace_path(project_id, trace.trace_id)))
    own = [score for score in scores if score.observation_id is None]
    sums = trace.counted().sums
    pairs: list[tuple[str, Child]] = [
        ("trace", copied(trace.trace_id)),
        ("began", time_element(trace.start_ms)),
        ("latency", duration_text(trace.latency_s)),
        ("tokens", count_text(sums.total_tokens)),
        ("cost", cost_element(sums.cost_usd, sums.unpriced_count)),
    ]
    if user_id:
        pairs.append(("user", user_id))
    return document(
        f"Trace {trace.name}",
        element("h1", trace.name),
        facts(*pairs),
        element("div", *score_chips(own), class_="figures") if own else None,
        element("div", _axis(trace), *lines, class_="tree card"),
        way=way,
    )


def _axis(trace: ShownTrace) -> Markup:
    ticks = [element("span", duration_text(trace.latency_s * share) if share else "0") for share in _TICKS]
    scale = element("span", *ticks, class_="ticks")
    return element("div", scale, element("span", class_="duration"), class_="axis", aria_hidden="true")


def _line(trace: ShownTrace, depth: int, found: ShownObservation, scores: Sequence[Score]) -> Markup:
    is_error = found.level == "ERROR"
    own = [score for score in scores if score.observation_id == found.span_id]
    summary = element(
        "summary",
        [element("span", class_="guide") for _ in range(min(depth, _MAX_DEPTH))],
        badge(found.type),
        element("span", found.name or "(no name)", class_="name"),
        element("span", found.model, class_="model") if found.model not in ("", found.name) else None,
        element("span", "failed", class_="chip bad") if is_error else None,
        score_chips(own),
        element("span", f"{found.total_usage:,} tok", class_="tokens") if found.total_usage else None,
        _bar(trace, found),
        element("span", duration_text((found.end_ms - found.start_ms) / 1000), class_="duration"),
    )
    return element("details", summary, *_content(found), class_=f"observation{' failed' if is_error else ''}")


def _bar(trace: ShownTrace, found: ShownObservation) -> Markup:
    """Draw when the observation ran; as SVG, since the content policy allows no inline style."""
    whole_ms = max(trace.latency_s * 1000, 1)
    left = min((found.start_ms - trace.start_ms) / whole_ms * _BAR_WIDTH, _BAR_WIDTH - _MIN_BAR)
    width = max((found.end_ms - found.start_ms) / whole_ms * _BAR_WIDTH, _MIN_BAR)
    kind = "failed" if found.level == "ERROR" else found.type.lower()
    bars = [element("rect", x=f"{left:.1f}", y=0, width=f"{width:.1f}", height=10, class_=kind)]
    first_ms = found.completion_start_ms
    if first_ms is not None and found.start_ms < first_ms < found.end_ms:
        waiting = (first_ms - found.start_ms) / whole_ms * _BAR_WIDTH
        bars.append(
            element("rect", x=f"{left:.1f}", y=0, width=f"{waiting:.1f}", height=10, class_="waiting")
        )
    return element("svg", *bars, viewBox=f"0 0 {_BAR_WIDTH} 10", preserveAspectRatio="none", class_="bar")


def _content(found: ShownObservation) -> list[Child]:
    parts = [_part(name, raw) for name, raw in (("Input", found.input), ("Output", found.output)) if raw]
    return [
        problem(found),
        _used(found),
        *(parts or [element("p", "Nothing was recorded.", class_="note")]),
        _folded("Parameters", found.model_parameters),
        _folded("Metadata", found.metadata),
    ]


def _used(found: ShownObservation) -> Markup | None:
    pairs: list[tuple[str, Child]] = []
    if found.completion_start_ms is not None:
        wait_s = (found.completion_start_ms - found.start_ms) / 1000
        pairs.append(("first token after", duration_text(wait_s)))
    usage = parse_or_text(found.usage_details)
    if isinstance(usage, dict):
        pairs += [(f"{name.replace('_', ' ')}", f"{count:,}") for name, count in usage.items()]
    if found.total_usage or found.total_cost is not None:
        pairs.append(("cost", cost_element(found.total_cost, int(found.is_unpriced))))
    pairs.append(("id", copied(found.span_id)))
    return facts(*pairs)


def _part(name: str, raw: str) -> Child:
    messages = read_messages(raw)
    if not messages:
        return [element("h3", name), shown_json(parse_or_text(raw))]
    earlier, latest = messages[:-_OPEN_MESSAGES], messages[-_OPEN_MESSAGES:]
    return [
        element("h3", name),
        element(
            "details",
            element("summary", f"{len(earlier)} earlier messages"),
            *map(_message, earlier),
            class_="earlier",
        )
        if earlier
        else None,
        *map(_message, latest),
    ]


def _message(message: Message) -> Markup:
    calls = [
        element("div", element("b", name), element("code", arguments), class_="call")
        for name, arguments in message.calls
    ]
    value = parse_or_text(message.text) if message.text else None
    text = shown_json(value) if isinstance(value, (list, dict)) else shown_markdown(message.text or "")
    content = None if message.content is None else shown_json(message.content)
    return element(
        "div",
        element("span", message.role, class_="role"),
        element("div", text if message.text else None, content, *calls),
        class_=f"message-line {'known' if message.role in ('user', 'assistant') else ''}",
    )


def _folded(name: str, raw: str) -> Markup | None:
    value = parse_or_text(raw) if raw else None
    if not value:
        return None
    return element("details", element("summary", name), shown_json(value), class_="metadata")

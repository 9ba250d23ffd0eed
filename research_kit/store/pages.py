"""The pages: sessions, the replay of one session, the tree of one trace.

Owns what a reader sees; the rows come from `page_rows`, who may see them is decided in `page_access`.
Invariant: every text from the database passes through `markup`; the only script is the store's own, which
reads the same page again.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from research_kit.store.markup import Child, Markup, element, fragment
from research_kit.store.page_rows import (
    MAX_OBSERVATIONS,
    Score,
    SessionSummary,
    ShownObservation,
    ShownTrace,
    tree_order,
)
from research_kit.store.session_filter import FilterChoices, SessionFilter
from research_kit.store.shown_text import indented, shown_text
from research_kit.store.times import ms_to_iso

__all__ = [
    "SCRIPT_PATH",
    "STYLE_PATH",
    "document",
    "message_page",
    "session_page",
    "sessions_page",
    "trace_page",
]

STYLE_PATH = "/static/pages.css"
SCRIPT_PATH = "/static/pages.js"
ROOT_MARK = "<!-- root -->"
"""Where a page says below which path of its host it is; links are relative to that."""

_BAR_WIDTH = 1000
_TYPES_IN_REPLAY = frozenset({"TOOL", "RETRIEVER"})


def document(title: str, *children: Child, refresh_to: str | None = None) -> str:
    """Put a page together."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(ROOT_MARK),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", **{"http-equiv": "refresh", "content": f"0;url={refresh_to}"})
        if refresh_to
        else None,
        element("title", title),
        element("link", rel="stylesheet", href=STYLE_PATH.lstrip("/")),
        # A page that only leads on is not read again.
        None if refresh_to else element("script", src=SCRIPT_PATH.lstrip("/"), type="module"),
    )
    return "<!doctype html>" + element("html", head, element("body", element("main", *children)), lang="en")


def message_page(title: str, *texts: Child, refresh_to: str | None = None) -> str:
    """Make a page that only says something."""
    return document(
        title, element("h1", title), *(element("p", text) for text in texts), refresh_to=refresh_to
    )


def sessions_page(
    project_id: str, sessions: Sequence[SessionSummary], wanted: SessionFilter, choices: FilterChoices
) -> str:
    """Make the list of sessions, with the form that narrows it."""
    form = _filter_form(project_id, wanted, choices)
    if not sessions:
        is_narrowed = wanted != SessionFilter()
        text = "No session is like this." if is_narrowed else "No session has been traced yet."
        nothing = element("p", text, class_="note")
        return document("Sessions", element("h1", "Sessions"), form if is_narrowed else None, nothing)
    texts = [element("th", name) for name in ("Session", "User", "Last activity")]
    numbers = [
        element("th", name, class_="number") for name in ("Traces", "Duration", "Tokens", "Cost", "Errors")
    ]
    table = element(
        "table",
        element("thead", element("tr", *texts, *numbers)),
        element("tbody", *(_session_line(project_id, session) for session in sessions)),
    )
    return document("Sessions", element("h1", "Sessions"), form, element("div", table, class_="scroll"))


def session_page(
    project_id: str, session_id: str, traces: Sequence[ShownTrace], scores: Sequence[Score]
) -> str:
    """Make the replay of one session: every trace in order, with what was asked, done and answered."""
    tokens = sum(trace.tokens for trace in traces)
    costs = [trace.cost_usd for trace in traces if trace.cost_usd is not None]
    users = sorted({found.user_id for trace in traces for found in trace.observations} - {""})
    shown_count = sum(len(trace.observations) for trace in traces)
    facts = _facts(
        ("user", ", ".join(users) or "unknown"),
        ("traces", f"{len(traces):,}"),
        ("tokens", f"{tokens:,}"),
        ("cost", _cost(sum(costs) if costs else None, is_partial=any(t.has_unknown_cost for t in traces))),
        *((score.name, score.value) for score in scores if score.trace_id is None),
    )
    turns = [
        _turn(project_id, number, trace, [score for score in scores if score.trace_id == trace.trace_id])
        for number, trace in enumerate(traces, 1)
    ]
    is_cut = shown_count >= MAX_OBSERVATIONS
    return document(
        f"Session {session_id}",
        _back(_sessions_path(project_id), "Sessions"),
        element("h1", "Session ", element("code", session_id)),
        facts,
        element("p", f"Only the first {MAX_OBSERVATIONS:,} observations are shown.", class_="note")
        if is_cut
        else None,
        element("ol", *turns, class_="turns"),
    )


def trace_page(project_id: str, trace: ShownTrace, scores: Sequence[Score]) -> str:
    """Make the tree of one trace with a bar for the time of each observation."""
    session_id = next((found.session_id for found in trace.observations if found.session_id), "")
    lines = [_tree_line(trace, depth, found) for depth, found in tree_order(trace)]
    return document(
        f"Trace {trace.name}",
        _back(_session_path(project_id, session_id), f"Session {session_id}") if session_id else None,
        element("h1", trace.name),
        _facts(
            ("trace", trace.trace_id),
            ("began", _time(trace.start_ms)),
            ("latency", _duration(trace.latency_s)),
            ("tokens", f"{trace.tokens:,}"),
            ("cost", _cost(trace.cost_usd, is_partial=trace.has_unknown_cost)),
            *((score.name, score.value) for score in scores),
        ),
        element("div", *lines, class_="tree"),
    )


def _filter_form(project_id: str, wanted: SessionFilter, choices: FilterChoices) -> Markup:
    path = _sessions_path(project_id)
    fields = [
        element(
            "label",
            "Search",
            element("input", type="search", name="q", value=wanted.words, placeholder="session or text"),
        ),
        _choice("User", "user", choices.users, wanted.user),
        _choice("Tag", "tag", choices.tags, wanted.tag),
        element("label", "From", element("input", type="date", name="since", value=wanted.since)),
        element("label", "To", element("input", type="date", name="until", value=wanted.until)),
        element(
            "label",
            element("input", type="checkbox", name="errors", value="1", checked=wanted.has_errors),
            "With errors",
            class_="check",
        ),
    ]
    buttons = [element("button", "Show", type="submit")]
    if wanted != SessionFilter():
        buttons.append(element("a", "Show all", href=path))
    return element("form", *fields, *buttons, action=path, class_="filter", role="search")


def _choice(label: str, name: str, values: Sequence[str], chosen: str) -> Markup | None:
    if not values:
        return None
    # A choice that is gone meanwhile stays visible: it still narrows the list.
    offered = values if not chosen or chosen in values else (*values, chosen)
    options = [element("option", value, value=value, selected=value == chosen) for value in offered]
    return element("label", label, element("select", element("option", "all", value=""), *options, name=name))


def _session_line(project_id: str, session: SessionSummary) -> Markup:
    link = element("a", session.session_id, href=_session_path(project_id, session.session_id))
    duration_s = (session.end_ms - session.start_ms) / 1000
    numbers = (
        f"{session.trace_count:,}",
        _duration(duration_s),
        f"{session.tokens:,}",
        _cost(session.cost_usd, is_partial=session.unpriced_count > 0),
        f"{session.error_count:,}" if session.error_count else "",
    )
    return element(
        "tr",
        element("td", link),
        element("td", session.user_id),
        element("td", _time(session.end_ms)),
        *(element("td", number, class_="number") for number in numbers),
    )


def _turn(project_id: str, number: int, trace: ShownTrace, scores: Sequence[Score]) -> Markup:
    root = trace.root
    link = element("a", trace.name, href=f"project/{project_id}/traces/{quote(trace.trace_id, safe='')}")
    heading = element(
        "header",
        element("span", f"{number}", class_="count"),
        element("h2", link),
        element("time", _time(trace.start_ms)),
    )
    steps = [_step(found) for found in trace.without_inner(_TYPES_IN_REPLAY) if found is not root]
    return element(
        "li",
        heading,
        _said("asked", root.input),
        *steps,
        _said("answered", root.output),
        _problem(root),
        _facts(
            ("latency", _duration(trace.latency_s)),
            ("tokens", f"{trace.tokens:,}"),
            ("cost", _cost(trace.cost_usd, is_partial=trace.has_unknown_cost)),
            *((score.name, f"{score.value} {score.comment or ''}".strip()) for score in scores),
        ),
        class_="turn",
    )


def _said(who: str, raw: str | None) -> Markup | None:
    shown = shown_text(raw)
    if shown is None:
        return None
    return element("div", shown.text, class_=f"said {who}{'' if shown.is_prose else ' structure'}")


def _step(found: ShownObservation) -> Markup:
    is_error = found.level == "ERROR"
    summary = element(
        "summary",
        _badge(found.type),
        element("span", found.name, class_="name"),
        element("span", "failed", class_="error") if is_error else None,
        element("span", _duration((found.end_ms - found.start_ms) / 1000), class_="duration"),
    )
    return element("details", summary, *_content(found), class_="step")


def _content(found: ShownObservation) -> list[Markup]:
    parts = [("Input", indented(found.input)), ("Output", indented(found.output))]
    shown = [fragment(element("h3", name), element("pre", text)) for name, text in parts if text]
    return [*shown, *filter(None, [_problem(found)])] or [
        element("p", "Nothing was recorded.", class_="note")
    ]


def _problem(found: ShownObservation) -> Markup | None:
    if not found.status_message:
        return None
    return element("p", found.status_message, class_="error" if found.level == "ERROR" else "note")


def _tree_line(trace: ShownTrace, depth: int, found: ShownObservation) -> Markup:
    summary = element(
        "summary",
        element("span", "\u00a0" * 4 * min(depth, 20), class_="indent"),
        _badge(found.type),
        element("span", found.name or "(no name)", class_="name"),
        element("span", found.model, class_="model") if found.model not in ("", found.name) else None,
        element("span", "failed", class_="error") if found.level == "ERROR" else None,
        _bar(trace, found),
        element("span", _duration((found.end_ms - found.start_ms) / 1000), class_="duration"),
    )
    used = _facts(
        ("input tokens", f"{found.input_usage:,}"),
        ("output tokens", f"{found.output_usage:,}"),
        ("cost", _cost(found.total_cost, is_partial=False)),
    )
    metadata = indented(found.metadata) or ""
    return element(
        "details",
        summary,
        used if found.total_usage else None,
        *_content(found),
        element("details", element("summary", "Metadata"), element("pre", metadata), class_="metadata"),
        class_="observation",
    )


def _bar(trace: ShownTrace, found: ShownObservation) -> Markup:
    """Draw when the observation ran; as SVG, since the content policy allows no inline style."""
    whole_ms = max(trace.latency_s * 1000, 1)
    left = (found.start_ms - trace.start_ms) / whole_ms * _BAR_WIDTH
    width = max((found.end_ms - found.start_ms) / whole_ms * _BAR_WIDTH, 4)
    rect = element(
        "rect",
        x=f"{min(left, _BAR_WIDTH - 4):.1f}",
        y=0,
        width=f"{width:.1f}",
        height=10,
        class_=found.type.lower(),
    )
    return element("svg", rect, viewBox=f"0 0 {_BAR_WIDTH} 10", preserveAspectRatio="none", class_="bar")


def _badge(observation_type: str) -> Markup:
    return element("span", observation_type.lower(), class_=f"badge {observation_type.lower()}")


def _facts(*pairs: tuple[str, str]) -> Markup:
    parts = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *parts, class_="facts")


def _back(path: str, text: str) -> Markup:
    return element("nav", element("a", "← ", text, href=path))


def _sessions_path(project_id: str) -> str:
    return f"project/{project_id}/sessions"


def _session_path(project_id: str, session_id: str) -> str:
    return f"{_sessions_path(project_id)}/{quote(session_id, safe='')}"


def _time(ms: int) -> str:
    return ms_to_iso(ms)[:19].replace("T", " ") + " UTC"


def _duration(duration_s: float) -> str:
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    return f"{duration_s:.2f} s" if duration_s < 60 else f"{duration_s / 60:.1f} min"


def _cost(cost_usd: float | None, *, is_partial: bool) -> str:
    if cost_usd is None:
        return "unknown" if is_partial else "none"
    text = f"${cost_usd:.6f}".rstrip("0").rstrip(".") if cost_usd < 0.01 else f"${cost_usd:,.4f}"
    return f"{text} + unknown" if is_partial else text

"""The list of sessions, with the form that narrows it.

Owns this one page; the rows come from `page_rows`. Invariant: what the form asked for is what the form shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from research_kit._words import count_text, duration_text
from research_kit.store.jsontext import parse_or_text
from research_kit.store.markup import Child, Markup, element
from research_kit.store.page_frame import (
    cost_element,
    document,
    session_path,
    sessions_path,
    tag_chips,
    time_element,
)
from research_kit.store.page_rows import SessionPage
from research_kit.store.page_sums import SessionSummary
from research_kit.store.prose import prose_of
from research_kit.store.session_filter import FilterChoices, SessionFilter

__all__ = ["sessions_page"]

_MAX_QUESTION_CHARACTERS = 160


def sessions_page(project_id: str, found: SessionPage, wanted: SessionFilter, choices: FilterChoices) -> str:
    """Make the list of sessions."""
    form = _form(project_id, wanted, choices)
    if not found.sessions:
        is_narrowed = wanted != SessionFilter()
        text = "No session is like this." if is_narrowed else "No session has been traced yet."
        content: list[Child] = [form if is_narrowed else None, element("p", text, class_="empty")]
    else:
        content = [form, element("div", _table(project_id, found.sessions), class_="scroll card")]
        content.append(_pager(project_id, found, wanted))
    count = element("span", f"{found.session_count:,}", class_="count") if found.sessions else None
    title = element("h1", "Sessions", count)
    return document("Sessions", title, *content, way=["Sessions"])


def _table(project_id: str, sessions: Sequence[SessionSummary]) -> Markup:
    texts = [element("th", name) for name in ("Session", "User", "Last activity")]
    numbers = [
        element("th", name, class_="number") for name in ("Traces", "Duration", "Tokens", "Cost", "Errors")
    ]
    return element(
        "table",
        element("thead", element("tr", *texts, *numbers)),
        element("tbody", *(_line(project_id, session) for session in sessions)),
    )


def _line(project_id: str, session: SessionSummary) -> Markup:
    link = element("a", session.session_id, href=session_path(project_id, session.session_id), class_="id")
    question = _question(session.first_input)
    sums = session.sums
    errors = element("span", f"{sums.error_count:,}", class_="chip bad") if sums.error_count else ""
    numbers: tuple[Child, ...] = (
        f"{session.trace_count:,}",
        duration_text((session.end_ms - session.start_ms) / 1000),
        count_text(sums.total_tokens),
        cost_element(sums.cost_usd, sums.unpriced_count),
        errors,
    )
    return element(
        "tr",
        element(
            "td",
            link,
            tag_chips(session.tags),
            element("div", question, class_="question") if question else None,
            class_="main",
        ),
        element("td", session.user_id),
        element("td", time_element(session.end_ms)),
        *(element("td", number, class_="number") for number in numbers),
    )


def _question(raw: str | None) -> str:
    text = prose_of(parse_or_text(raw)) if raw else None
    line = " ".join((text or "").split())
    return line if len(line) <= _MAX_QUESTION_CHARACTERS else f"{line[:_MAX_QUESTION_CHARACTERS]}…"


def _form(project_id: str, wanted: SessionFilter, choices: FilterChoices) -> Markup:
    path = sessions_path(project_id)
    fields = [
        element(
            "label",
            "Search",
            element("input", type="search", name="q", value=wanted.words, placeholder="session or text"),
            class_="wide",
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


def _pager(project_id: str, found: SessionPage, wanted: SessionFilter) -> Markup | None:
    last = found.offset + len(found.sessions)
    if not found.offset and last >= found.session_count:
        return None
    links = []
    for text, offset in (("← newer", found.offset - found.size), ("older →", found.offset + found.size)):
        if 0 <= offset < found.session_count:
            query = urlencode({**wanted.parameters(), "offset": offset})
            links.append(element("a", text, href=f"{sessions_path(project_id)}?{query}"))
    shown = f"{found.offset + 1:,} to {last:,} of {found.session_count:,}"
    return element("nav", element("span", shown), *links, class_="pager", aria_label="Pages")

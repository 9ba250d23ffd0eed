"""What all pages have in common: the frame around them, and small parts of them.

Owns the head, the bar at the top, and how costs, times and scores look. Invariant: every text passes
through `markup`; the only script is the store's own, which keeps a page up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from research_kit._words import cost_note, cost_text
from research_kit.store.markup import Child, Markup, element
from research_kit.store.page_rows import Score
from research_kit.store.times import ms_to_iso

__all__ = [
    "ROOT_MARK",
    "SCRIPT_PATH",
    "STYLE_PATH",
    "WAY_SCRIPT_PATH",
    "badge",
    "copied",
    "cost_element",
    "document",
    "facts",
    "message_page",
    "score_chips",
    "session_path",
    "sessions_path",
    "tag_chips",
    "time_element",
    "trace_path",
    "way_script",
]

STYLE_PATH = "/static/pages.css"
SCRIPT_PATH = "/static/pages.js"
WAY_SCRIPT_PATH = "/static/way.js"
ROOT_MARK = "<!-- root -->"
"""Where a page says below which path of its host it is; links are relative to that."""

_KEYS = (("/", "search"), ("j k", "move"), ("Enter", "open"), ("e", "open all"))
_MAX_COMMENT_CHARACTERS = 200


def document(
    title: str,
    *children: Child,
    way: Sequence[Child] = (),
    refresh_to: str | None = None,
    script: Child = None,
) -> str:
    """Put a page together.

    Args:
        title: Of the window.
        children: What is on the page.
        way: The links that lead here, for the bar at the top.
        refresh_to: Where the browser goes on at once.
        script: Runs before anything is shown.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(ROOT_MARK),
        script,
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", **{"http-equiv": "refresh", "content": f"0;url={refresh_to}"})
        if refresh_to
        else None,
        element("title", f"{title} · research-kit"),
        element("link", rel="stylesheet", href=STYLE_PATH.lstrip("/")),
        # A page that only leads on is not read again.
        None if refresh_to or script else element("script", src=SCRIPT_PATH.lstrip("/"), type="module"),
    )
    body = element("body", _bar(way) if way else None, element("main", *children), _keys() if way else None)
    return "<!doctype html>" + element("html", head, body, lang="en")


def _bar(way: Sequence[Child]) -> Markup:
    steps = [element("li", step) for step in way]
    return element(
        "header",
        element("span", "research-kit", class_="brand"),
        element("nav", element("ol", *steps), aria_label="Where you are"),
        element("span", class_="live", role="status"),
        class_="bar-top",
    )


def _keys() -> Markup:
    return element("footer", *(element("span", element("kbd", key), f" {does}") for key, does in _KEYS))


def message_page(title: str, *texts: Child, refresh_to: str | None = None, script: Child = None) -> str:
    """Make a page that only says something."""
    lines = (element("p", text) for text in texts if text)
    card = element("section", element("h1", title), *lines, class_="message")
    return document(title, card, refresh_to=refresh_to, script=script)


def way_script(*, root: str, place: str = "") -> Markup:
    """Let the browser remember ``place``, or go on to the one that it remembers.

    Args:
        root: The path of a proxy that the pages are reached through; empty without one.
        place: The first part of the paths of the pages; empty on a page that may not know it.
    """
    return element("script", src=WAY_SCRIPT_PATH.lstrip("/"), data_root=root, data_place=place)


def facts(*pairs: tuple[str, Child], class_: str = "facts") -> Markup:
    """List names with their values."""
    parts = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *parts, class_=class_)


def badge(observation_type: str) -> Markup:
    """Show the type of an observation in its color."""
    return element("span", observation_type.lower(), class_=f"badge {observation_type.lower()}")


def tag_chips(tags: Sequence[str]) -> list[Markup]:
    """Show tags."""
    return [element("span", tag, class_="chip tag") for tag in tags]


def score_chips(scores: Sequence[Score]) -> list[Markup]:
    """Show scores; what is true or false in the color of good or bad."""
    return [_score_chip(score) for score in scores]


def _score_chip(score: Score) -> Markup:
    verdict = {"true": " good", "false": " bad"}.get(score.value, "")
    value = {"true": "✓", "false": "✗"}.get(score.value, score.value)
    comment = (score.comment or "")[:_MAX_COMMENT_CHARACTERS]
    return element(
        "span",
        element("span", f"{score.name} ", class_="label"),
        element("b", value),
        element("q", comment) if comment else None,
        class_=f"chip score{verdict}",
        title=score.value,
    )


def copied(text: str) -> Markup:
    """Show a text that a click copies."""
    return element("button", text, type="button", class_="copy", data_copy=text, title="Copy")


def time_element(ms: int) -> Markup:
    """Show a point in time; the script shows it in the reader's own zone."""
    iso = ms_to_iso(ms)
    return element("time", iso[:19].replace("T", " ") + " UTC", datetime=iso)


def cost_element(cost_usd: float | None, unpriced_count: int) -> Markup:
    """Show a cost, which says why it is not exact when it is pointed at."""
    return element("span", cost_text(cost_usd, unpriced_count), title=cost_note(cost_usd, unpriced_count))


def sessions_path(project_id: str) -> str:
    """Return where the list of sessions is."""
    return f"project/{project_id}/sessions"


def session_path(project_id: str, session_id: str) -> str:
    """Return where the replay of a session is."""
    return f"{sessions_path(project_id)}/{quote(session_id, safe='')}"


def trace_path(project_id: str, trace_id: str) -> str:
    """Return where the tree of a trace is."""
    return f"project/{project_id}/traces/{quote(trace_id, safe='')}"

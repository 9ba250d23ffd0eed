"""The one style sheet of all views.

Owns colours and layout; the rules are in ``views.css``. Invariant: text and lines take the colour that the
page around them has, so that a view is right in a light and in a dark page; every rule is below ``.rk-view``.
"""

from __future__ import annotations

from pathlib import Path

from research_kit.store.markup import Child, Markup, element

__all__ = ["KINDS", "page", "styled"]

KINDS = {
    "generation": "#2f7fc1",
    "tool": "#c9770a",
    "agent": "#1e9a6d",
    "chain": "#3f93b5",
    "retriever": "#b06aa0",
    "embedding": "#8a8d1f",
}
"""Colours of the types of observations; each has a contrast of 3 against white and against near black."""

# Read once: showing a view reads nothing.
_RULES = Path(__file__).with_name("views.css").read_text(encoding="utf-8").partition("*/")[2]
_COLORS = "".join(f".rk-view .rk-k-{kind}{{--rk-c:{color}}}" for kind, color in KINDS.items())
_SHEET = Markup(" ".join(_RULES.split()) + _COLORS)
_PAGE_STYLE = Markup(
    ":root{color-scheme:light dark}body{margin:0;padding:24px 12px;background:Canvas;color:CanvasText}"
    ".rk-view{margin:0 auto;border:0}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def styled(*children: Child) -> str:
    """Return one element that brings its own style."""
    return element("div", element("style", _SHEET), *children, class_="rk-view")


def page(title: str, body: str) -> str:
    """Return a page that stands alone: it loads nothing and runs nothing."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _PAGE_STYLE),
    )
    return "<!doctype html>" + element("html", head, element("body", Markup(body)), lang="en") + "\n"

"""HTML that is escaped by construction.

Owns the one way to make HTML. Invariant: a plain `str` is always escaped, and hides and turns nothing that
stands beside it; only what `element` returns is markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from research_kit.plain_text import plain_characters

__all__ = ["Child", "Markup", "element", "fragment"]

_VOID = frozenset({"base", "meta", "link", "br", "hr", "input", "rect"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"


def fragment(*children: Child) -> Markup:
    """Join children; plain text is escaped, None is nothing."""
    return Markup("".join(_rendered(child) for child in children))


def element(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Make one element.

    Args:
        name: The name of the element.
        children: What is inside.
        attributes: Underscores become hyphens, and a trailing one is dropped (``class_``). True is an
            attribute without value; None and False leave it out.
    """
    shown = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{_text(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        # Within SVG an element without the slash holds what follows.
        return Markup(f"<{name}{shown}{'/' if name == 'rect' else ''}>")
    return Markup(f"<{name}{shown}>{fragment(*children)}</{name}>")


def _text(text: str) -> str:
    return escape(plain_characters(text))


def _attribute_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _rendered(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return _text(child)
    return "".join(_rendered(part) for part in child)

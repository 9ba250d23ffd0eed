"""The readable text in an observation's input or output.

Owns the guess what a person said and what was answered, for pages only. Invariant: whatever is not
recognised is shown whole, as indented JSON.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from research_kit.store.jsontext import parse_or_text

__all__ = ["Shown", "indented", "shown_text"]

_TEXT_KEYS = (
    "question",
    "answer",
    "text",
    "content",
    "output",
    "input",
    "message",
    "prompt",
    "query",
    "result",
)
_MAX_CHARACTERS = 20_000


class Shown(NamedTuple):
    """Text to show, and whether it is prose or structure."""

    text: str
    is_prose: bool


def shown_text(raw: str | None) -> Shown | None:
    """Return what to show of an input or output; None when there is nothing."""
    if not raw:
        return None
    value = parse_or_text(raw)
    prose = _prose(value)
    if prose is not None:
        return Shown(_shortened(prose), is_prose=True)
    return Shown(_shortened(json.dumps(value, ensure_ascii=False, indent=2)), is_prose=False)


def indented(raw: str | None) -> str | None:
    """Return JSON with indentation and other text as it is; None when there is nothing."""
    if not raw:
        return None
    value = parse_or_text(raw)
    return _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))


def _prose(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return json.dumps(value)
    if isinstance(value, dict):
        texts = [value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)]
        return texts[0] if len(texts) == 1 else None
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "role" in value[-1]:
        content = value[-1].get("content")
        return content if isinstance(content, str) else None
    return None


def _shortened(text: str) -> str:
    hidden = len(text) - _MAX_CHARACTERS
    return text if hidden <= 0 else f"{text[:_MAX_CHARACTERS]}\n… {hidden:,} more characters"

"""Search for whole words."""

from __future__ import annotations

import json
import re

__all__ = ["has_words", "split_words"]

_BREAKS = re.compile(r"[^0-9A-Za-z_\x80-\U0010ffff]+")


def has_words(text: str | None, wanted: str, folds_case: int) -> bool:
    """Return whether every word of ``wanted`` (a JSON list) is a whole word of ``text``. Called by SQLite."""
    if text is None:
        return False
    words = set(split_words(text.lower() if folds_case else text))
    return all(word in words for word in json.loads(wanted))


def split_words(text: str) -> list[str]:
    """Return the words of ``text`` in their order."""
    return [word for word in _BREAKS.split(text) if word]

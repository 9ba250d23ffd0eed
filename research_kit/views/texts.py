"""Times and texts of traces as views show them.

Owns how they are shortened; numbers are worded in `_words`. That foreign text is plain in what is shown, see
to `element` and `View.to_text`.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from research_kit._words import UNKNOWN
from research_kit.plain_text import plain_characters

__all__ = [
    "known",
    "pause_text",
    "plain_line",
    "shortened",
    "structure_of",
    "time_text",
]

MAX_CHARACTERS = 20_000


def known(value: Any) -> Any:
    """Return a value of a frame; None when it is missing."""
    if isinstance(value, (dict, list)):
        return value
    return None if pd.isna(value) else value


def pause_text(seconds: float) -> str:
    """Return a pause in the largest unit that fits."""
    for unit, length_s in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
        if seconds >= length_s:
            count = round(seconds / length_s)
            return f"{count} {unit}{'' if count == 1 else 's'} later"
    return f"{seconds:.0f} seconds later"


def time_text(moment: pd.Timestamp | None, *, has_date: bool = False) -> str:
    """Return a point in time in UTC, to the second."""
    if moment is None:
        return UNKNOWN
    return f"{moment:%Y-%m-%d %H:%M:%S UTC}" if has_date else f"{moment:%H:%M:%S}"


def plain_line(text: str, length: int) -> str:
    """Return ``text`` on one line of at most ``length`` characters."""
    line = " ".join(plain_characters(text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def shortened(text: str) -> str:
    """Return at most so much of a text as a page can hold, saying what is left out."""
    hidden = len(text) - MAX_CHARACTERS
    return text if hidden <= 0 else f"{text[:MAX_CHARACTERS]}\n… {hidden:,} more characters"


def structure_of(value: Any) -> str:
    """Return an input or output whole: a text as it is, anything else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)

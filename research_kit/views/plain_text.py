"""Times and texts of traces as views show them.

Owns how they are shortened and cleaned; numbers are worded in `_words`. Invariant: no text holds characters
that control a terminal.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from research_kit._words import UNKNOWN

__all__ = [
    "known",
    "pause_text",
    "plain_line",
    "printable",
    "shortened",
    "structure_of",
    "time_text",
]

MAX_CHARACTERS = 20_000

# Tab and line feed stay; every other control character may move the cursor or colour what follows.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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


def printable(text: str) -> str:
    """Return ``text`` without control characters and half characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).encode("utf-8", "replace").decode()


def plain_line(text: str, length: int) -> str:
    """Return ``text`` on one line of at most ``length`` characters."""
    line = " ".join(printable(text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def shortened(text: str) -> str:
    """Return at most so much of a text as a page can hold, saying what is left out."""
    hidden = len(text) - MAX_CHARACTERS
    return printable(text if hidden <= 0 else f"{text[:MAX_CHARACTERS]}\n… {hidden:,} more characters")


def structure_of(value: Any) -> str:
    """Return an input or output whole: a text as it is, anything else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)

"""Numbers, times and texts as people read them.

Owns the wording of all views; computes nothing. Invariant: what is not known is shown as a dash and never as
zero, and no text holds characters that control a terminal.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

__all__ = [
    "UNKNOWN",
    "cost_text",
    "duration_text",
    "known",
    "pause_text",
    "plain_line",
    "printable",
    "shortened",
    "structure_of",
    "time_text",
    "tokens_text",
]

UNKNOWN = "–"  # noqa: RUF001 - the dash is what readers expect for "no value"
MAX_CHARACTERS = 20_000

# Tab and line feed stay; every other control character may move the cursor or colour what follows.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def known(value: Any) -> Any:
    """Return a value of a frame; None when it is missing."""
    if isinstance(value, (dict, list)):
        return value
    return None if pd.isna(value) else value


def duration_text(seconds: float | None) -> str:
    """Return a duration with the digits that matter at its size."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 or seconds == 0 else "< 1 ms"
    if seconds < 9.95:
        return f"{seconds:.2f} s"
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def pause_text(seconds: float) -> str:
    """Return a pause in the largest unit that fits."""
    for unit, length_s in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
        if seconds >= length_s:
            count = round(seconds / length_s)
            return f"{count} {unit}{'' if count == 1 else 's'} later"
    return f"{seconds:.0f} seconds later"


def cost_text(cost_usd: float | None, unpriced_count: int = 0) -> str:
    """Return US dollars: a dash when unknown, after ``≥`` when some calls have no known price."""
    if cost_usd is None or (cost_usd == 0 and unpriced_count):
        return UNKNOWN
    return f"≥ {_dollars(cost_usd)}" if unpriced_count else _dollars(cost_usd)


def tokens_text(input_tokens: int | None, output_tokens: int | None) -> str:
    """Return input and output tokens; a dash when neither is known."""
    if input_tokens is None and output_tokens is None:
        return UNKNOWN
    return f"{input_tokens or 0:,} in · {output_tokens or 0:,} out"


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


def _dollars(cost_usd: float) -> str:
    if cost_usd == 0:
        return "$0"
    if cost_usd < 0.00001:
        return "< $0.00001"
    if cost_usd < 0.01:
        return f"${cost_usd:.5f}".rstrip("0")
    return f"${cost_usd:.3f}" if cost_usd < 1 else f"${cost_usd:,.2f}"

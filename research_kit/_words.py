"""Numbers as people read them, worded once for chat, views, pages and reports; and texts of strangers.

Owns the wording; computes nothing. Invariants: what is not known is a dash and never zero, and what cost
something is never rounded to nothing; what somebody else wrote stays on its line and shows what is in it.
"""

from __future__ import annotations

import math
import re

from research_kit.plain_text import plain_text

__all__ = [
    "UNKNOWN",
    "cost_note",
    "cost_text",
    "count_text",
    "dollars_text",
    "duration_text",
    "tokens_text",
    "visible_text",
]

UNKNOWN = "–"  # noqa: RUF001 - the dash is what readers expect for "no value"

_MOST_DECIMALS = 6
_LEAST_USD = 0.000_001  # what is less may round to nothing
_MOST_SPACES = 3


def duration_text(seconds: float | None) -> str:
    """Return a duration: milliseconds below a second, seconds below a hundred, then minutes and hours."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0:  # clocks of two machines differ
        return f"-{duration_text(-seconds)}"
    if seconds < 0.9995:
        return "< 1 ms" if 0 < seconds <= 0.0005 else f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cost_text(cost_usd: float | None, unpriced_count: int = 0) -> str:
    """Return a cost in US dollars: a dash when unknown, after ``≥`` when some calls have no known price."""
    if cost_usd is None or (unpriced_count and cost_usd < _LEAST_USD):
        return UNKNOWN
    return f"≥ {dollars_text(cost_usd)}" if unpriced_count else dollars_text(cost_usd)


def dollars_text(cost_usd: float) -> str:
    """Return an amount in cents, below a dollar with the three digits that matter."""
    if cost_usd < 0:
        return f"-{dollars_text(-cost_usd)}"
    if cost_usd == 0:
        return "$0"
    if cost_usd < _LEAST_USD:
        return "< $0.000001"
    if cost_usd < 1:
        decimals = min(2 - math.floor(math.log10(cost_usd)), _MOST_DECIMALS)
        whole, fraction = f"{cost_usd:.{decimals}f}".rstrip("0").split(".")
        return f"${whole}.{fraction:0<2}"
    return f"${cost_usd:,.2f}"


def cost_note(cost_usd: float | None, unpriced_count: int = 0) -> str:
    """Return why a cost is not exact when it is not."""
    if unpriced_count:
        calls = "1 call has" if unpriced_count == 1 else f"{unpriced_count:,} calls have"
        return f"{calls} no known price."
    return "No cost is known yet." if cost_usd is None else "The cost of all calls is known."


def tokens_text(input_tokens: int | None, output_tokens: int | None) -> str:
    """Return input and output tokens; one dash when neither is known."""
    if input_tokens is None and output_tokens is None:
        return UNKNOWN
    return f"{count_text(input_tokens)} in · {count_text(output_tokens)} out"


def count_text(count: int | None) -> str:
    """Return a number of things."""
    return UNKNOWN if count is None else f"{count:,}"


def visible_text(text: str, *, limit: int | None = None) -> str:
    """Return a stranger's text as one line without anything that acts: control characters, turned directions.

    Args:
        text: What a file, a server or a model wrote.
        limit: The most characters of it that are shown; how many are left out is said.
    """
    shown = text if limit is None else text[:limit]
    spaced = re.sub(f" {{{_MOST_SPACES + 1},}}", lambda run: f" [{len(run[0])} spaces] ", shown)
    line = plain_text(spaced)
    rest_count = len(text) - len(shown)
    return f"{line}… {rest_count:,} more characters" if rest_count else line

"""The usage of a conversation as short texts.

Owns which texts there are; numbers are worded in `_words`.
"""

from __future__ import annotations

from research_kit._words import UNKNOWN, cost_note, cost_text, tokens_text
from research_kit.chat.events import Usage

__all__ = ["usage_texts"]


def usage_texts(usage: Usage | None) -> dict[str, str]:
    """Return tokens and cost as texts, and why the cost is not exact when it is not."""
    used = usage or Usage()
    # A call that has answered has used some, so that none at all is what nobody counted.
    is_counted = used.input_tokens + used.output_tokens > 0
    return {
        "tokens": tokens_text(used.input_tokens, used.output_tokens) if is_counted else UNKNOWN,
        "cost": cost_text(used.cost_usd, used.unpriced_count),
        "cost_note": cost_note(used.cost_usd, used.unpriced_count),
    }

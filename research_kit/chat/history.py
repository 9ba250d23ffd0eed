"""The messages that a conversation remembers, and how many of them the next question carries.

Owns the finished messages in their order; sends nothing. Invariant: what the model is given is the newest
messages without a gap, and at most as many tokens as allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from research_kit.chat.events import Usage

__all__ = ["Exchange", "Totals", "estimate_tokens", "messages_within"]

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question that was answered.

    Attributes:
        message_number: Number of the message in its conversation.
        question: What the user wrote.
        answer: What the assistant answered.
    """

    message_number: int
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums of a conversation.

    Attributes:
        message_count: Messages sent, whatever became of them.
        usage: Tokens and cost of all of them.
        latency_p50_s: Median time to the whole answer in seconds; None before the first answer.
    """

    message_count: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_p50_s: float | None = None


def estimate_tokens(text: str) -> int:
    """Return about how many tokens ``text`` has; no tokenizer is loaded, and bytes serve all scripts."""
    return len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN + 1


def messages_within(exchanges: Sequence[Exchange], max_tokens: int) -> list[dict[str, str]]:
    """Return the newest messages with at most ``max_tokens`` together, oldest first, as DSPy reads them."""
    kept: list[dict[str, str]] = []
    rest = max_tokens
    for exchange in reversed(exchanges):
        rest -= estimate_tokens(exchange.question) + estimate_tokens(exchange.answer)
        if rest < 0:
            break
        kept.append({"question": exchange.question, "answer": exchange.answer})
    return kept[::-1]

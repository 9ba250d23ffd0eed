"""What happens while one message is answered, as typed values.

Owns the vocabulary between the conversation engine and whoever shows it. Invariant: every turn ends with
exactly one of `MessageFinished`, `MessageFailed`, `MessageCancelled`, and begins with `MessageStarted` unless
it ended while it still waited.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ApprovalNeeded",
    "Delta",
    "Event",
    "MessageCancelled",
    "MessageFailed",
    "MessageFinished",
    "MessageStarted",
    "Notice",
    "ToolFinished",
    "ToolReported",
    "ToolStarted",
    "Usage",
    "add_usage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and cost of one message or a whole conversation.

    Attributes:
        input_tokens: Tokens sent to language models.
        output_tokens: Tokens that language models answered.
        cost_usd: Cost in US dollars; None when no call had a known cost.
        unpriced_count: Calls whose cost is not known.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    unpriced_count: int = 0


def add_usage(first: Usage, second: Usage) -> Usage:
    """Return the sum; a cost that is unknown on one side does not hide the other."""
    costs = [cost for cost in (first.cost_usd, second.cost_usd) if cost is not None]
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cost_usd=sum(costs) if costs else None,
        unpriced_count=first.unpriced_count + second.unpriced_count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStarted:
    """The message was accepted and its trace was opened; `trace_id` is None when telemetry is off."""

    message_number: int
    text: str
    trace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of the answer; `offset` counts the characters of the answer before it."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A tool is being called."""

    call_id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalNeeded:
    """A tool that may change something waits for `Conversation.decide`, under the id of its `ToolStarted`.

    Attributes:
        call_id: What is decided about.
        name: Name of the tool.
        server: Name of its server.
        arguments: What it would be called with.
        is_changed: Whether it was allowed for the session, and has another description now.
        description: What its server says that it does.
        is_destructive: Whether its server says that it may destroy something.
    """

    call_id: str
    name: str
    server: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    is_changed: bool = False
    description: str = ""
    is_destructive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReported:
    """A running tool says how far it is: `done` of `total` in its own unit, and what it is doing."""

    call_id: str
    done: float
    total: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the user should know and that does not end the message, such as a budget nearly used."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished:
    """A tool answered, or failed with `is_error`; its pictures are data addresses."""

    call_id: str
    name: str
    result: str
    is_error: bool
    latency_s: float
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFinished:
    """The whole answer; it supersedes the deltas."""

    answer: str
    usage: Usage
    latency_s: float
    trace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFailed:
    """The message could not be answered; `error` says why and what to do."""

    error: str
    usage: Usage
    latency_s: float
    trace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCancelled:
    """The user stopped the answer; `answer` is what had arrived."""

    answer: str
    usage: Usage
    latency_s: float
    trace_id: str | None


Event = (
    MessageStarted
    | Delta
    | ToolStarted
    | ApprovalNeeded
    | ToolReported
    | ToolFinished
    | Notice
    | MessageFinished
    | MessageFailed
    | MessageCancelled
)

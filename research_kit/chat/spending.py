"""What a session has used, and how much it may use: ``rk.budget()``.

Owns the sums per session, taken from the spans of this process whoever made them, and the limits; what
counts is decided in `research_kit.counting`. Invariant: a budget refuses a call before it is made; a cost
that is not known counts as nothing, and is said to be unknown.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from html import escape

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from research_kit import session
from research_kit._words import dollars_text
from research_kit.chat.events import Usage, add_usage
from research_kit.counting import LiveSums, Sums
from research_kit.errors import ConfigError
from research_kit.session.attribute_names import SESSION_ID
from research_kit.session.export_filter import should_export_span
from research_kit.session.span_figures import span_figures

__all__ = ["Budget", "Spending", "budget", "spending", "start_counting"]

_WARNING_PART = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a session has used and may use.

    Attributes:
        session_id: The session; None when nothing is bound.
        used: Tokens and cost so far.
        limit_usd: What it may cost in US dollars; None without a limit.
        limit_tokens: How many tokens it may use, input and output; None without a limit.
    """

    session_id: str | None
    used: Usage
    limit_usd: float | None = None
    limit_tokens: int | None = None

    @property
    def used_part(self) -> float | None:
        """Part of the tighter limit that is used; None without a limit."""
        parts = []
        if self.limit_usd is not None:
            parts.append(_part(self.used.cost_usd or 0.0, self.limit_usd))
        if self.limit_tokens is not None:
            parts.append(_part(self.used.input_tokens + self.used.output_tokens, self.limit_tokens))
        return max(parts, default=None)

    @property
    def is_warning(self) -> bool:
        """Whether most of it is used."""
        return (self.used_part or 0.0) >= _WARNING_PART

    @property
    def is_spent(self) -> bool:
        """Whether the next call is refused."""
        return (self.used_part or 0.0) >= 1.0

    def refusal(self) -> str:
        """Say that the next call is refused, and what to do."""
        return f"The budget of this session is used: {self}. Raise it with rk.budget(usd=..., tokens=...)."

    def __str__(self) -> str:
        """Say it in one line."""
        tokens = self.used.input_tokens + self.used.output_tokens
        limit = "" if self.limit_tokens is None else f" of {self.limit_tokens:,}"
        parts = [f"{tokens:,}{limit} tokens"]
        cost = "unknown cost" if self.used.cost_usd is None else dollars_text(self.used.cost_usd)
        parts.append(cost if self.limit_usd is None else f"{cost} of {dollars_text(self.limit_usd)}")
        if count := self.used.unpriced_count:
            parts.append(f"{count} call{'' if count == 1 else 's'} of unknown cost")
        return ", ".join(parts)

    def __repr__(self) -> str:
        """Show the same line, so that a cell's last line reads well."""
        return f"Budget: {self}" if self.used_part is not None else f"No budget; used: {self}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    usd: float | None = None
    tokens: int | None = None


class Spending(SpanProcessor):
    """Adds up what everything in this process used, by session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = LiveSums()
        self._seen: dict[str | None, Usage] = {}
        self._before: dict[str | None, Usage] = {}
        self._limits: dict[str | None, _Limits] = {}

    def of(self, session_id: str | None) -> Budget:
        """Return what a session has used and may use."""
        with self._lock:
            limits = self._limits.get(session_id, _Limits())
            used = add_usage(self._before.get(session_id, Usage()), self._seen.get(session_id, Usage()))
        return Budget(session_id=session_id, used=used, limit_usd=limits.usd, limit_tokens=limits.tokens)

    def limit(self, session_id: str | None, *, usd: float | None, tokens: int | None) -> None:
        """Set both limits of a session; None is no limit."""
        with self._lock:
            self._limits[session_id] = _Limits(usd=usd, tokens=tokens)

    def add(self, session_id: str | None, usage: Usage) -> None:
        """Count ``usage`` that no span tells."""
        with self._lock:
            self._add(session_id, usage)

    def _add(self, session_id: str | None, usage: Usage) -> None:
        self._seen[session_id] = add_usage(self._seen.get(session_id, Usage()), usage)

    def recall(self, session_id: str | None, total: Usage) -> None:
        """Take the sums of a resumed session, which include what this process did and was delivered."""
        with self._lock:
            self._before[session_id] = _difference(total, self._seen.get(session_id, Usage()))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is known yet."""

    def on_end(self, span: ReadableSpan) -> None:
        """Count what the span adds to the sums of its session."""
        with session.guarded("budget"):
            context = span.get_span_context()
            # What is not sent has no place in the tree that a server sees.
            if context is None or not should_export_span(span):
                return
            session_id = (span.attributes or {}).get(SESSION_ID)
            parent_id = None if span.parent is None else span.parent.span_id
            facts = span_figures(span).facts
            with self._lock:
                change = self._sums.end(context.trace_id, context.span_id, parent_id, facts)
                self._add(None if session_id is None else str(session_id), _usage(change))


_spending = Spending()


def spending() -> Spending:
    """Return the sums of this process."""
    return _spending


def start_counting() -> None:
    """Switch tracing on, and count the LM calls that end from now on; may take seconds the first time."""
    session.activate()
    session.kernel_session().watch(_spending)


def budget(*, usd: float | None = None, tokens: int | None = None) -> Budget:
    """Limit what this session may use, and return how it stands; without arguments only return it.

    The chat warns when four fifths are used, and refuses a message, or the next call within one, when all is.
    Calls of cells count too; they are not refused. Each call replaces both limits; ``math.inf`` lifts one.

    Args:
        usd: What the session may cost in US dollars. Calls of unknown cost count as nothing.
        tokens: How many tokens, input and output, it may use.

    Raises:
        ConfigError: When a limit is not above 0.
    """
    for name, value in (("usd", usd), ("tokens", tokens)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value!r}. Give a number above 0, or math.inf to lift the limit.")
    start_counting()
    session_id = session.current_session_id()
    if usd is not None or tokens is not None:
        _spending.limit(
            session_id,
            usd=None if usd == float("inf") else usd,
            tokens=None if tokens == float("inf") else tokens,
        )
    return _spending.of(session_id)


def _part(used: float, limit: float) -> float:
    return used / limit


def _difference(total: Usage, seen: Usage) -> Usage:
    cost = None if total.cost_usd is None else max(total.cost_usd - (seen.cost_usd or 0.0), 0.0)
    return replace(
        total,
        input_tokens=max(total.input_tokens - seen.input_tokens, 0),
        output_tokens=max(total.output_tokens - seen.output_tokens, 0),
        cost_usd=cost,
        unpriced_count=max(total.unpriced_count - seen.unpriced_count, 0),
    )


def _usage(sums: Sums) -> Usage:
    return Usage(
        input_tokens=sums.input_tokens or 0,
        output_tokens=sums.output_tokens or 0,
        cost_usd=sums.cost_usd,
        unpriced_count=sums.unpriced_count,
    )

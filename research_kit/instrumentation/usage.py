"""Tokens and cost of one LM call, as DSPy's history tells them.

DSPy gives callbacks neither; they are in the LM's history, in the element whose messages are the very object
that the call was made with. Where there is no such element, because the history is off or the call was a
typed request, DSPy's usage tracker still tells the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.usage_tracker import UsageTracker

from research_kit.instrumentation.free_models import is_free_model

__all__ = ["CallTracker", "CallUsage", "LMCall", "usage_details"]

_MAX_COUNT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUsage:
    """What one LM call used.

    Attributes:
        details: Tokens by Langfuse's keys; empty when the provider reported none or a cache answered.
        cost_usd: Cost in US dollars; None when it is not known, 0 for a cached answer.
        is_cache_hit: Whether DSPy's cache answered.
    """

    details: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    is_cache_hit: bool = False

    @property
    def input_tokens(self) -> int:
        """All tokens sent, cached ones included."""
        return sum(count for key, count in self.details.items() if key.startswith("input"))

    @property
    def output_tokens(self) -> int:
        """All tokens answered, reasoning included."""
        return sum(count for key, count in self.details.items() if key.startswith("output"))


class CallTracker(UsageTracker):
    """Takes the usage of one LM call from DSPy and hands it on.

    Args:
        outer: The tracker that is in effect around the call; None when there is none.
    """

    def __init__(self, outer: UsageTracker | None) -> None:
        super().__init__()
        self._outer = outer
        self.report_count = 0

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Take one report; DSPy makes none when its cache answered."""
        self.report_count += 1
        super().add_usage(lm, usage_entry)
        if self._outer is not None:
            self._outer.add_usage(lm, usage_entry)

    def total(self) -> Mapping[str, Any]:
        """Return the usage of all reports in the shape of one."""
        return next(iter(self.get_total_tokens().values()), {})


@dataclass(frozen=True, slots=True, kw_only=True)
class LMCall:
    """One call of an LM, kept from its start until it can be measured.

    Attributes:
        tracker: In effect during the call; None when only the history tells what was used.
    """

    lm: dspy.BaseLM
    prompt: Any
    messages: Any
    tracker: CallTracker | None = None

    @classmethod
    def of(cls, lm: dspy.BaseLM, inputs: Mapping[str, Any], *, tracker: CallTracker | None = None) -> LMCall:
        """Take the call from the inputs that DSPy gives its callbacks."""
        return cls(lm=lm, prompt=inputs.get("prompt"), messages=inputs.get("messages"), tracker=tracker)

    @property
    def request(self) -> Any:
        """What was asked: the messages, else the prompt."""
        return self.prompt if self.messages is None else self.messages

    def measure(self) -> CallUsage:
        """Return what the call used; call it when the LM has answered."""
        entry = self._history_entry()
        if entry is None:
            return self._tracked()
        is_cache_hit, cost = _is_cache_hit(entry), entry.get("cost")
        if is_cache_hit or (cost is None and is_free_model(str(self.lm.model))):
            cost = 0.0  # a cached answer keeps its historical cost in the history
        return CallUsage(
            details=usage_details(entry.get("usage") or {}), cost_usd=cost, is_cache_hit=is_cache_hit
        )

    def measure_failed(self) -> CallUsage:
        """Return what a failed call used; providers also bill answers that could not be read."""
        return CallUsage(details=usage_details(self.tracker.total())) if self.tracker else CallUsage()

    def _tracked(self) -> CallUsage:
        if self.tracker is None:
            return CallUsage()
        if not self.tracker.report_count:
            return CallUsage(cost_usd=0.0, is_cache_hit=True)
        cost = 0.0 if is_free_model(str(self.lm.model)) else None
        return CallUsage(details=usage_details(self.tracker.total()), cost_usd=cost)

    def _history_entry(self) -> Mapping[str, Any] | None:
        key = "prompt" if self.messages is None else "messages"
        history: list[Mapping[str, Any]] = list(self.lm.history)
        return next((entry for entry in reversed(history) if entry.get(key) is self.request), None)


def usage_details(usage: Mapping[str, Any]) -> dict[str, int]:
    """Translate OpenAI-shaped usage into Langfuse's keys, which count cached and reasoning tokens apart."""
    if usage.get("prompt_tokens") is None and usage.get("completion_tokens") is None:
        return {}
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = {"input": max(prompt - cached, 0), "output": max(completion - reasoning, 0)}
    if cached:
        details["input_cached_tokens"] = cached
    if reasoning:
        details["output_reasoning_tokens"] = reasoning
    return {**details, "total": prompt + completion}


def _count(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, Mapping) else None
    # What an LM's server says can be any number; an infinite one would lose the whole call.
    return int(value) if isinstance(value, int | float) and 0 <= value <= _MAX_COUNT else 0


def _is_cache_hit(entry: Mapping[str, Any]) -> bool:
    if entry.get("usage"):
        return False
    response = entry.get("response")
    # DSPy empties the usage of a cached answer; the answer itself still tells what it once used.
    was_measured = getattr(getattr(response, "usage", None), "input_tokens", None) is not None
    return was_measured or bool(getattr(response, "cache_hit", False))

"""What a run may cost and has to do, and whether it did.

Owns the names of the expectations, which are the same in `expect` and in the configuration, and their
judgement. Does not find out what a run did. Invariant: an expectation that cannot be checked is not met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from research_kit.errors import ConfigError, ResearchKitError
from research_kit.regression.trace_facts import TraceFacts

__all__ = ["Expectations", "UnmetExpectationError", "read_expectations"]


class UnmetExpectationError(ResearchKitError, AssertionError):
    """A run did not do what was expected of it.

    Attributes:
        unmet: One sentence per expectation that was not met.
    """

    def __init__(self, unmet: Sequence[str]) -> None:
        super().__init__("\n".join(unmet))
        self.unmet = tuple(unmet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What is expected; None expects nothing.

    Attributes:
        max_cost_usd: The most that all language model calls together may cost.
        max_total_tokens: The most tokens that they may use.
        max_lm_calls: How many there may be.
        max_tool_calls: How many tool calls there may be.
        max_latency_p50_s: The longest median latency of the language model calls.
        max_latency_p95_s: The longest 95th percentile.
        tools: The tools that are called: each of them, and no other, in any order.
        tool_sequence: The tool calls, one by one.
        models: The only models that may be called.
        no_errors: True when no observation may have failed.
    """

    max_cost_usd: float | None = None
    max_total_tokens: float | None = None
    max_lm_calls: float | None = None
    max_tool_calls: float | None = None
    max_latency_p50_s: float | None = None
    max_latency_p95_s: float | None = None
    tools: tuple[str, ...] | None = None
    tool_sequence: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    no_errors: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is expected."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def find_unmet(self, facts: TraceFacts) -> tuple[str, ...]:
        """Return a sentence per expectation that ``facts`` does not meet, with both values."""
        return tuple([*self._above_limits(facts), *self._other_names(facts), *self._failures(facts)])

    def _above_limits(self, facts: TraceFacts) -> Iterator[str]:
        if self.max_cost_usd is not None and facts.unknown_cost_count:
            yield (
                f"max_cost_usd={self.max_cost_usd:g} cannot be checked: the cost of "
                f"{facts.unknown_cost_count} of {facts.lm_call_count} language model calls is unknown."
            )
        limits = (
            ("max_cost_usd", self.max_cost_usd, facts.cost_usd),
            ("max_total_tokens", self.max_total_tokens, facts.total_tokens),
            ("max_lm_calls", self.max_lm_calls, facts.lm_call_count),
            ("max_tool_calls", self.max_tool_calls, len(facts.tools)),
            ("max_latency_p50_s", self.max_latency_p50_s, facts.lm_latency_p50_s),
            ("max_latency_p95_s", self.max_latency_p95_s, facts.lm_latency_p95_s),
        )
        for name, limit, actual in limits:
            # Sums of prices are not exact in binary; the limit itself is still within the limit.
            if limit is not None and actual is not None and actual > limit * (1 + 1e-9):
                yield f"{name}={limit:g} is exceeded: {actual:.6g}."

    def _other_names(self, facts: TraceFacts) -> Iterator[str]:
        called = tuple(sorted(set(facts.tools)))
        if self.tools is not None and tuple(sorted(set(self.tools))) != called:
            yield f"tools: expected {_names(self.tools)}, called were {_names(called)}."
        if self.tool_sequence is not None and self.tool_sequence != facts.tools:
            yield f"tool_sequence: expected {_names(self.tool_sequence)}, called were {_names(facts.tools)}."
        others = (
            () if self.models is None else tuple(name for name in facts.models if name not in self.models)
        )
        if others:
            yield f"models: expected only {_names(self.models or ())}, called were also {_names(others)}."

    def _failures(self, facts: TraceFacts) -> Iterator[str]:
        if self.no_errors and facts.errors:
            yield f"no_errors: {len(facts.errors)} observation(s) failed; the first: {facts.errors[0]}"


def read_expectations(values: Mapping[str, Any]) -> Expectations:
    """Check values given by a person.

    Raises:
        ConfigError: When a name is unknown, or a value cannot be used.
    """
    known = [field.name for field in fields(Expectations)]
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{name!r} is no expectation. Use one of: {', '.join(known)}.")
        given[name] = None if value is None else _checked(name, value)
    return Expectations(**given)


def _checked(name: str, value: Any) -> Any:
    if name == "no_errors":
        if isinstance(value, bool):
            return value
        raise ConfigError(f"no_errors is {value!r}, which is neither true nor false.")
    if name.startswith("max_"):
        if not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf:
            return float(value)
        raise ConfigError(f"{name} is {value!r}, which is not a number from 0.")
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ConfigError(f'{name} is {value!r}, which is not a list of names. Write it as {name}=["name"].')


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"

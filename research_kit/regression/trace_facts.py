"""What one run did, as numbers and names: its language model calls, tool calls, errors, tokens and cost.

Owns the summing up of observations, whether they were seen in the kernel or read back; judges nothing.
Invariant: an unknown cost is counted as unknown, never as 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from research_kit.counting import Counted, Facts, count, parent_places, tool_name

__all__ = ["Observed", "TraceFacts", "sum_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One observation, as far as checks look at it.

    Attributes:
        trace_id: Its trace.
        observation_id: Its id.
        parent_id: The observation it happened in; empty for a root.
        facts: What it is and used, as far as counting looks at it.
        session_id: The session.
        start_s: When it began, in seconds; only the order matters.
        latency_s: How long it took.
        model: The model of an LM call; empty when unknown.
        message: What went wrong, where something did.
    """

    trace_id: str
    observation_id: str
    parent_id: str
    facts: Facts
    session_id: str
    start_s: float
    latency_s: float
    model: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TraceFacts:
    """What one run did.

    Attributes:
        session_ids: The sessions that it belongs to; more than one when the notebook began a new one.
        observation_count: All observations.
        lm_call_count: Language model calls.
        input_tokens: Tokens sent.
        output_tokens: Tokens answered.
        cost_usd: What everything cost, as far as it is known.
        unknown_cost_count: Language model calls whose cost is not known.
        models: The models, sorted.
        tools: The tools called, in order, each call.
        errors: What went wrong, in order: name and message.
        lm_latency_p50_s: Median latency of the language model calls; None without any.
        lm_latency_p95_s: Their 95th percentile.
    """

    session_ids: tuple[str, ...] = ()
    observation_count: int = 0
    lm_call_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unknown_cost_count: int = 0
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    lm_latency_p50_s: float | None = None
    lm_latency_p95_s: float | None = None

    def __repr__(self) -> str:
        """Show what does not differ from run to run, because a notebook's last line may be the facts."""
        cost = "unknown" if self.unknown_cost_count else f"{self.cost_usd:.6g}"
        return (
            f"TraceFacts(lm_call_count={self.lm_call_count}, total_tokens={self.total_tokens}, "
            f"cost_usd={cost}, models={self.models}, tools={self.tools}, errors={self.errors})"
        )

    @property
    def total_tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TraceFacts:
        """Read what `as_json` returned."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**known)


def sum_up(observations: Iterable[Observed]) -> TraceFacts:
    """Sum up the observations of one run; what counts is decided in `research_kit.counting`."""
    ordered = sorted(observations, key=lambda one: one.start_s)
    pairs = list(zip(ordered, _counted(ordered), strict=True))
    lm_calls = [one for one, own in pairs if own.is_call]
    latencies = [one.latency_s for one in lm_calls]
    return TraceFacts(
        session_ids=tuple(dict.fromkeys(one.session_id for one in ordered if one.session_id)),
        observation_count=len(ordered),
        lm_call_count=len(lm_calls),
        input_tokens=sum(own.input_tokens or 0 for _, own in pairs),
        output_tokens=sum(own.output_tokens or 0 for _, own in pairs),
        cost_usd=math.fsum(own.cost_usd or 0.0 for _, own in pairs),
        unknown_cost_count=sum(own.is_unpriced for _, own in pairs),
        models=tuple(sorted({one.model for one in lm_calls if one.model})),
        tools=tuple(tool_name(one.facts.name) for one, own in pairs if own.is_tool_call),
        errors=tuple(f"{one.facts.name}: {one.message or 'failed'}" for one, own in pairs if own.is_error),
        lm_latency_p50_s=_median(latencies),
        lm_latency_p95_s=_p95(latencies),
    )


def _counted(observations: Sequence[Observed]) -> list[Counted]:
    parents = parent_places(
        [(one.trace_id, one.observation_id) for one in observations],
        [(one.trace_id, one.parent_id) for one in observations],
    )
    return count([one.facts for one in observations], parents)


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _p95(values: list[float]) -> float | None:
    """Return the 95th percentile, between neighbours linearly."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]

"""What one run did, as numbers and names: its language model calls, tool calls, errors, tokens and cost.

Owns the summing up of observations, whether they were seen in the kernel or read back; judges nothing.
Invariant: an unknown cost is counted as unknown, never as 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Observed", "TraceFacts", "sum_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One observation, as far as checks look at it.

    Attributes:
        observation_id: Its id.
        parent_id: The observation it happened in; empty for a root.
        kind: ``lm``, ``tool`` or ``other``.
        name: Its name; of a tool call, the tool.
        session_id: The session.
        start_s: When it began, in seconds; only the order matters.
        latency_s: How long it took.
        model: The model of an LM call; empty when unknown.
        input_tokens: Tokens sent.
        output_tokens: Tokens answered.
        cost_usd: What it cost; None when unknown.
        error: What went wrong; empty when nothing did.
    """

    observation_id: str
    parent_id: str
    kind: str
    name: str
    session_id: str
    start_s: float
    latency_s: float
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TraceFacts:
    """What one run did.

    Attributes:
        session_ids: The sessions that it belongs to; more than one when the notebook began a new one.
        observation_count: All observations.
        lm_call_count: Language model calls.
        input_tokens: Their input tokens.
        output_tokens: Their output tokens.
        cost_usd: What they cost, as far as it is known.
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
    """Sum up the observations of one run.

    A tool call is counted once, although the agent's call and the MCP client's inside it are two
    observations.
    """
    ordered = sorted(observations, key=lambda one: one.start_s)
    by_id = {one.observation_id: one for one in ordered}
    # A wrapper repeats the cost of what it wraps: only the innermost call counts.
    wrappers = {
        around.observation_id for one in ordered if one.kind == "lm" for around in _around(one, by_id)
    }
    lm_calls = [one for one in ordered if one.kind == "lm" and one.observation_id not in wrappers]
    tools = [one for one in ordered if one.kind == "tool" and not _is_in_tool(one, by_id)]
    latencies = [one.latency_s for one in lm_calls]
    failed = {one.observation_id for one in ordered if one.error}
    # An error travels outwards; it is told where it began.
    outer = {one.parent_id for one in ordered if one.error}
    return TraceFacts(
        session_ids=tuple(dict.fromkeys(one.session_id for one in ordered if one.session_id)),
        observation_count=len(ordered),
        lm_call_count=len(lm_calls),
        input_tokens=sum(one.input_tokens for one in lm_calls),
        output_tokens=sum(one.output_tokens for one in lm_calls),
        cost_usd=math.fsum(one.cost_usd or 0.0 for one in lm_calls),
        unknown_cost_count=sum(one.cost_usd is None for one in lm_calls),
        models=tuple(sorted({one.model for one in lm_calls if one.model})),
        tools=tuple(one.name for one in tools),
        errors=tuple(
            f"{one.name}: {one.error}"
            for one in ordered
            if one.observation_id in failed and one.observation_id not in outer
        ),
        lm_latency_p50_s=_median(latencies),
        lm_latency_p95_s=_p95(latencies),
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _p95(values: list[float]) -> float | None:
    """Return the 95th percentile, between neighbours linearly."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _is_in_tool(one: Observed, by_id: Mapping[str, Observed]) -> bool:
    return any(around.kind == "tool" for around in _around(one, by_id))


def _around(one: Observed, by_id: Mapping[str, Observed]) -> Iterator[Observed]:
    """Yield the observations that ``one`` happened in, from the inside."""
    parent = by_id.get(one.parent_id)
    while parent is not None:
        yield parent
        parent = by_id.get(parent.parent_id)

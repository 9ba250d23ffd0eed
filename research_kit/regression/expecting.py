"""`expect`: what the notebook's own session did so far has to be what the notebook says.

Owns where the facts come from: inside a regression run from the kernel itself, elsewhere from the server.
Invariant: `expect` returns the facts, or raises with every expectation that is not met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from research_kit.counting import Facts
from research_kit.regression.expectations import UnmetExpectationError, read_expectations
from research_kit.regression.trace_facts import Observed, TraceFacts, sum_up

if TYPE_CHECKING:
    from research_kit.regression.span_watch import SpanWatch

__all__ = ["expect", "watch_spans"]

_watch: SpanWatch | None = None


def expect(
    *,
    max_cost_usd: float | None = None,
    max_total_tokens: int | None = None,
    max_lm_calls: int | None = None,
    tools: Sequence[str] | None = None,
    tool_sequence: Sequence[str] | None = None,
    no_errors: bool | None = None,
    **more: Any,
) -> TraceFacts:
    """Require of this kernel's session, as far as it has come, what a regression test would.

    The same names work per notebook in ``[tool.research_kit.regression.budgets]``.

    Args:
        max_cost_usd: The most that all language model calls together may have cost, in US dollars. A cost
            that is unknown is too much.
        max_total_tokens: The most tokens that they may have used.
        max_lm_calls: How many there may have been.
        tools: The tools that were called: each of these, and no other.
        tool_sequence: The tool calls, one by one.
        no_errors: True when no observation may have failed.
        **more: ``max_tool_calls``, ``max_latency_p50_s``, ``max_latency_p95_s`` (of language model calls),
            ``models`` (the only ones that may have been called).

    Returns:
        What the session did: `TraceFacts`.

    Raises:
        UnmetExpectationError: An `AssertionError` with one line per expectation that is not met.
        ConfigError: When a name or a value cannot be used, or no session is bound.
    """
    expectations = read_expectations(
        {
            "max_cost_usd": max_cost_usd,
            "max_total_tokens": max_total_tokens,
            "max_lm_calls": max_lm_calls,
            "tools": tools,
            "tool_sequence": tool_sequence,
            "no_errors": no_errors,
            **more,
        }
    )
    facts = sum_up(_watch.observed() if _watch is not None else _read_back())
    unmet = expectations.find_unmet(facts)
    if unmet:
        raise UnmetExpectationError(unmet)
    return facts


def watch_spans() -> SpanWatch:
    """Keep the facts of what is observed in this process from now on; repeated calls change nothing."""
    global _watch
    if _watch is None:
        from research_kit.regression.span_watch import SpanWatch
        from research_kit.session import kernel_session

        _watch = SpanWatch()
        kernel_session().watch(_watch)
    return _watch


def _read_back() -> Iterator[Observed]:
    from research_kit.traces import observations_df

    for row in observations_df(cache=False).to_dict("records"):
        yield _observed(row)


def _observed(row: Mapping[str, Any]) -> Observed:
    return Observed(
        trace_id=_value(row, "trace_id", ""),
        observation_id=_value(row, "observation_id", ""),
        parent_id=_value(row, "parent_observation_id", ""),
        facts=Facts(
            _value(row, "type", ""),
            _value(row, "name", ""),
            _value(row, "cost_usd", None),
            _value(row, "input_tokens", None),
            _value(row, "output_tokens", None),
            _value(row, "total_tokens", None),
            _value(row, "level", "") == "ERROR",
        ),
        session_id=_value(row, "session_id", ""),
        start_s=row["start_time"].timestamp(),
        latency_s=_value(row, "latency_s", 0.0),
        model=_value(row, "model", ""),
        message=_value(row, "status_message", ""),
    )


def _value(row: Mapping[str, Any], name: str, missing: Any) -> Any:
    import pandas as pd

    value = row.get(name)
    return missing if value is None or value is pd.NA or value != value else value

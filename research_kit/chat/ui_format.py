"""Numbers of a conversation as short texts.

Owns the wording; computes nothing. Invariant: what is not known is shown as a dash and never as zero.
"""

from __future__ import annotations

from research_kit.chat.events import Usage

__all__ = ["UNKNOWN", "format_cost", "format_dollars", "format_latency", "usage_texts"]

UNKNOWN = "–"  # noqa: RUF001 - the dash is what readers expect for "no value"


def format_cost(usage: Usage | None) -> str:
    """Return the cost in US dollars: a dash when unknown, after ``≥`` when some calls have no known price."""
    if usage is None or usage.cost_usd is None or (usage.cost_usd == 0 and usage.unpriced_count):
        return UNKNOWN
    return f"≥ {format_dollars(usage.cost_usd)}" if usage.unpriced_count else format_dollars(usage.cost_usd)


def format_latency(latency_s: float | None) -> str:
    """Return a duration with the digits that matter at its size."""
    if latency_s is None:
        return UNKNOWN
    if latency_s < 0.995:
        return f"{latency_s:.2f} s"
    if latency_s < 9.95:
        return f"{latency_s:.1f} s"
    seconds = round(latency_s)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min {seconds % 60} s"


def usage_texts(usage: Usage | None) -> dict[str, str]:
    """Return tokens and cost as texts, and why the cost is not exact when it is not."""
    return {
        "tokens": _format_tokens(usage),
        "cost": format_cost(usage),
        "cost_note": _cost_note(usage),
    }


def format_dollars(cost_usd: float) -> str:
    """Return an amount with the digits that matter at its size."""
    if cost_usd == 0:
        return "$0"
    if cost_usd < 0.0001:
        return "< $0.0001"
    if cost_usd < 0.01:
        return f"${cost_usd:.4f}"
    return f"${cost_usd:.3f}" if cost_usd < 1 else f"${cost_usd:,.2f}"


def _format_tokens(usage: Usage | None) -> str:
    if usage is None or usage.input_tokens + usage.output_tokens == 0:
        return UNKNOWN
    return f"{usage.input_tokens:,} in · {usage.output_tokens:,} out"


def _cost_note(usage: Usage | None) -> str:
    if usage is None or (usage.cost_usd is None and not usage.unpriced_count):
        return "No cost is known yet."
    if not usage.unpriced_count:
        return "The cost of all calls is known."
    calls = "1 call has" if usage.unpriced_count == 1 else f"{usage.unpriced_count:,} calls have"
    return f"{calls} no known price."

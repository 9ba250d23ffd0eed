"""What the header of a panel shows of its conversation."""

from __future__ import annotations

from typing import Any

from research_kit._words import dollars_text, duration_text
from research_kit.chat.spending import Budget
from research_kit.chat.ui_engine import Engine
from research_kit.chat.ui_format import usage_texts

__all__ = ["read_status"]


def read_status(engine: Engine, *, is_busy: bool) -> dict[str, Any]:
    """Return the value of the trait ``status``; nothing of it is secret."""
    totals = engine.totals
    usage = totals.usage
    return {
        "session_id": engine.session_id,
        "user_id": engine.user_id,
        "backend_state": engine.backend_state,
        "backend_reason": engine.backend_reason,
        "session_url": engine.page_address(),
        "lm_name": engine.lm_name,
        "is_busy": is_busy,
        "message_count": totals.message_count,
        "tokens": usage.input_tokens + usage.output_tokens,
        "cost_usd": usage.cost_usd,
        "latency_p50_s": totals.latency_p50_s,
        "budget": _budget(engine.budget),
        "trust": engine.trust.to_wire(),
        "texts": {**usage_texts(usage), "latency_p50": duration_text(totals.latency_p50_s)},
    }


def _budget(budget: Budget) -> dict[str, Any] | None:
    if budget.used_part is None:
        return None
    level = "spent" if budget.is_spent else "warning" if budget.is_warning else "good"
    return {"used_part": min(budget.used_part, 1.0), "level": level, "text": _budget_text(budget)}


def _budget_text(budget: Budget) -> str:
    parts = []
    if budget.limit_usd is not None:
        parts.append(f"{usage_texts(budget.used)['cost']} of {dollars_text(budget.limit_usd)}")
    if budget.limit_tokens is not None:
        tokens = budget.used.input_tokens + budget.used.output_tokens
        parts.append(f"{tokens:,} of {budget.limit_tokens:,} tokens")
    return " · ".join(parts)

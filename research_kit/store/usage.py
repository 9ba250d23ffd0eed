"""Tokens and cost of one span.

Owns the shapes in which clients send usage and cost. Invariant: what the client says about cost wins; the
price table speaks only when the client said nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.store.jsontext import parse_or_none
from research_kit.store.prices import Model, PricingTier, cut_cost, find_model

__all__ = ["Consumption", "read_consumption", "read_usage"]

# SQLite sums integers in 64 bits; no real count comes near this limit.
_MAX_TOKENS = 2**53

_GEN_AI_USAGE = "gen_ai.usage."
_OPENINFERENCE_USAGE = "llm.token_count."
_USAGE_NAMES = {
    "input_tokens": "input",
    "prompt_tokens": "input",
    "prompt": "input",
    "output_tokens": "output",
    "completion_tokens": "output",
    "completion": "output",
    "total_tokens": "total",
    "cache_read_input_tokens": "input_cached_tokens",
    "prompt_details.cache_read": "input_cached_tokens",
    "completion_details.reasoning": "output_reasoning_tokens",
}
_OPENAI_SHAPES = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """Tokens and cost of one observation, with the model that they belong to."""

    model: Model | None
    tier: PricingTier | None
    usage: dict[str, int]
    cost: dict[str, float]

    def tokens_of(self, part: str) -> int:
        """Return the tokens of all usage keys whose name contains ``part``."""
        return sum(count for key, count in self.usage.items() if part in key)

    def cost_of(self, part: str) -> float | None:
        """Return the cost of all keys whose name contains ``part``; None without such a key."""
        costs = [cost for key, cost in self.cost.items() if part in key]
        return sum(costs) if costs else None


def read_consumption(
    attributes: Mapping[str, Any], model_name: str, parameters: Mapping[str, Any]
) -> Consumption:
    """Work out the tokens and the cost of a span."""
    usage = read_usage(attributes)
    cost = _client_cost(attributes)
    model = find_model(model_name) if model_name else None
    tier = model.tier_for(usage, parameters) if model and usage else None
    if not cost and tier:
        cost = _priced(usage, tier)
    elif cost and usage and "total" not in cost:
        cost["total"] = cut_cost(sum(cost.values()))
    return Consumption(model=model, tier=tier, usage=usage, cost=cost)


def read_usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens by kind, with their total; empty when the client sent none."""
    if "langfuse.observation.usage_details" in attributes:
        details = parse_or_none(attributes["langfuse.observation.usage_details"])
        usage = _whole_counts(_flattened_openai(details).items()) if isinstance(details, dict) else {}
    else:
        usage = _conventional_usage(attributes)
    if usage and "total" not in usage:
        usage["total"] = sum(usage.values())
    return usage


def _flattened_openai(details: dict[str, Any]) -> dict[str, Any]:
    """Translate the usage object of an OpenAI answer; leave every other object as it is."""
    for input_key, output_key in _OPENAI_SHAPES:
        if input_key in details and output_key in details:
            flat = {
                "input": details[input_key],
                "output": details[output_key],
                "total": details.get("total_tokens"),
            }
            _take_parts_out(flat, "input", details.get(f"{input_key}_details"))
            _take_parts_out(flat, "output", details.get(f"{output_key}_details"))
            return flat
    return details


def _take_parts_out(flat: dict[str, Any], whole: str, parts: object) -> None:
    if not isinstance(parts, dict):
        return
    for name, count in _whole_counts(parts.items()).items():
        flat[f"{whole}_{name}"] = count
        if isinstance(flat[whole], int):
            flat[whole] = max(0, flat[whole] - count)


def _conventional_usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    named = (
        (_USAGE_NAMES.get(name, name), value)
        for prefix in (_GEN_AI_USAGE, _OPENINFERENCE_USAGE)
        for name, value in _with_prefix(attributes, prefix)
        if name != "cost"
    )
    usage = _whole_counts(named)
    for part, whole in (("input_cached_tokens", "input"), ("output_reasoning_tokens", "output")):
        if part in usage and whole in usage:
            usage[whole] = max(0, usage[whole] - usage[part])
    return usage


def _with_prefix(attributes: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    return [(key[len(prefix) :], value) for key, value in attributes.items() if key.startswith(prefix)]


def _whole_counts(pairs: Iterable[tuple[str, Any]]) -> dict[str, int]:
    counts = ((key, _whole_count(value)) for key, value in pairs)
    return {key: count for key, count in counts if count is not None}


def _whole_count(value: object) -> int | None:
    """Return a count that was sent as a number or as text; None for everything else."""
    if isinstance(value, str):
        value = parse_or_none(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and 0 <= value <= _MAX_TOKENS else None


def _client_cost(attributes: Mapping[str, Any]) -> dict[str, float]:
    if "langfuse.observation.cost_details" in attributes:
        details = parse_or_none(attributes["langfuse.observation.cost_details"])
        return _costs(details) if isinstance(details, dict) else {}
    for key in ("gen_ai.usage.cost", "llm.cost.total"):
        if key in attributes:
            return _costs({"total": attributes[key]})
    return {}


def _costs(details: Mapping[str, Any]) -> dict[str, float]:
    parsed = {
        key: parse_or_none(value) if isinstance(value, str) else value for key, value in details.items()
    }
    return {key: cut_cost(value) for key, value in parsed.items() if _is_amount(value)}


def _is_amount(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e15
    )


def _priced(usage: Mapping[str, int], tier: PricingTier) -> dict[str, float]:
    cost = {key: cut_cost(count * tier.prices[key]) for key, count in usage.items() if key in tier.prices}
    if cost and "total" not in cost:
        cost["total"] = cut_cost(sum(cost.values()))
    return cost

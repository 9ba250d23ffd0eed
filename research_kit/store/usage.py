"""Tokens and cost of one span.

Owns the shapes in which clients send usage and cost. Invariant: what the client says about cost wins; the
price table speaks only when the client said nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.store.jsontext import is_too_much, parse_or_none
from research_kit.store.prices import Model, PricingTier, cut_cost, find_model

__all__ = ["Consumption", "read_consumption", "read_usage"]

# SQLite sums integers in 64 bits; no real count comes near this limit.
_MAX_TOKENS = 2**53
_MAX_COST = 1e15
_COST_DIGITS = 12

_GEN_AI_USAGE = "gen_ai.usage."
_OPENINFERENCE_USAGE = "llm.token_count."
# Names for one thing, the first one that is there counts.
_INPUT = ("prompt_tokens", "input_tokens", "prompt")
_OUTPUT = ("completion_tokens", "output_tokens", "completion")
_TOTAL = ("total_tokens", "total")
_CACHE_READ = (
    "cache_read.input_tokens",
    "cache_read_input_tokens",
    "cache_read_tokens",
    "details.cache_read_tokens",
    "details.cache_read_input_tokens",
    "prompt_details.cache_read",
    "input_cached_tokens",
)
_CACHE_WRITE = (
    "cache_creation.input_tokens",
    "cache_creation_input_tokens",
    "cache_write_tokens",
    "details.cache_write_tokens",
    "details.cache_creation_input_tokens",
    "prompt_details.cache_write",
    "input_cache_creation",
)
_REASONING = (
    "reasoning.output_tokens",
    "reasoning_tokens",
    "reasoning_token_count",
    "thoughts_tokens",
    "thought_tokens",
    "output_reasoning_tokens",
    "output_reasoning",
    "reasoning",
    "details.reasoning_tokens",
    "details.reasoning",
    "details.reasoning.output_tokens",
    "details.thoughts_tokens",
    "details.thought_tokens",
    "completion_details.reasoning",
    "completion_details.reasoning_tokens",
)
_AUDIO = ("completion_details.audio",)
_NAMED = frozenset((*_INPUT, *_OUTPUT, *_TOTAL, *_CACHE_READ, *_CACHE_WRITE, *_REASONING, *_AUDIO))
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
        return min(sum(count for key, count in self.usage.items() if part in key), _MAX_TOKENS)

    def cost_of(self, part: str) -> float | None:
        """Return the cost of all keys whose name contains ``part``; None without such a key."""
        costs = [cost for key, cost in self.cost.items() if part in key]
        return round(sum(costs), _COST_DIGITS) if costs else None


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
        cost["total"] = round(sum(cost.values()), _COST_DIGITS)
    return Consumption(model=model, tier=tier, usage=usage, cost=cost)


def read_usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens by kind, with their total; empty when the client sent none."""
    details = _json_object(attributes, "langfuse.observation.usage_details")
    usage = _conventional_usage(attributes) if details is None else _whole_counts(_flattened_openai(details))
    if usage and "total" not in usage:
        usage["total"] = min(sum(usage.values()), _MAX_TOKENS)
    return usage


def _json_object(attributes: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return an attribute that holds an object as JSON; None when it is missing or no JSON at all."""
    given = attributes.get(name)
    if not given or (isinstance(given, str) and is_too_much(given)):
        return None
    try:
        parsed = json.loads(given) if isinstance(given, str) else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else {}


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
    for name, count in _whole_counts(parts).items():
        flat[f"{whole}_{name}"] = count
        if isinstance(flat[whole], int):
            flat[whole] = max(0, flat[whole] - count)


def _conventional_usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Read tokens as the semantic conventions name them; parts are taken out of the wholes they belong to."""
    given = {
        key[len(prefix) :]: value
        for prefix in (_GEN_AI_USAGE, _OPENINFERENCE_USAGE)
        for key, value in attributes.items()
        if key.startswith(prefix) and key != f"{_GEN_AI_USAGE}cost"
    }
    if not given:
        return {}
    counts = _whole_counts(given)

    def first(names: Iterable[str]) -> int | None:
        return next((counts[name] for name in names if name in counts), None)

    read, written, reasoning, audio = map(first, (_CACHE_READ, _CACHE_WRITE, _REASONING, _AUDIO))
    named = {
        "input": _remainder(first(_INPUT), read, written),
        "output": _remainder(first(_OUTPUT), reasoning, audio),
        "total": first(_TOTAL),
        "input_cached_tokens": read,
        "input_cache_creation": written,
        "output_reasoning_tokens": reasoning,
        "output_audio_tokens": audio,
    }
    others = {name.removeprefix("details."): count for name, count in counts.items() if name not in _NAMED}
    return {**others, **{name: count for name, count in named.items() if count is not None}}


def _remainder(whole: int | None, *parts: int | None) -> int | None:
    return None if whole is None else max(0, whole - sum(part or 0 for part in parts))


def _whole_counts(given: Mapping[str, Any]) -> dict[str, int]:
    counts = ((key, _whole_count(value)) for key, value in given.items())
    return {key: count for key, count in counts if count is not None}


def _whole_count(value: object) -> int | None:
    """Return a count that was sent as a number or as text; None for everything else."""
    if isinstance(value, str):
        value = parse_or_none(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_TOKENS:
        return None  # comparing also sorts out what is no number, and whole numbers of any length
    return int(value) if value == int(value) else None


def _client_cost(attributes: Mapping[str, Any]) -> dict[str, float]:
    details = _json_object(attributes, "langfuse.observation.cost_details")
    if details is not None:
        return _costs(details)
    totals = (attributes.get(key) for key in ("gen_ai.usage.cost", "llm.cost.total"))
    total = next((given for given in totals if given not in (None, "")), None)
    return {} if total is None else _costs({"total": total})


def _costs(details: Mapping[str, Any]) -> dict[str, float]:
    parsed = {
        key: parse_or_none(value) if isinstance(value, str) else value for key, value in details.items()
    }
    return {key: cut_cost(value) for key, value in parsed.items() if _is_amount(value)}


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MAX_COST < value < _MAX_COST


def _priced(usage: Mapping[str, int], tier: PricingTier) -> dict[str, float]:
    cost = {key: cut_cost(tier.prices[key], count) for key, count in usage.items() if key in tier.prices}
    if cost and "total" not in cost:
        cost["total"] = round(sum(cost.values()), _COST_DIGITS)
    return cost

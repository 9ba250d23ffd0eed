"""The price table: which model a name means, and what its tokens cost.

Owns matching and multiplying; knows no spans. Invariant: a cost is cut to 12 digits after the point, as in
the server whose table this is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

from research_kit.store.jsontext import number_text

__all__ = ["Model", "PricingTier", "cut_cost", "find_model", "list_models"]

_COST_SCALE = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class PricingTier:
    """Prices in USD by usage key, and when they apply."""

    tier_id: str
    name: str
    is_default: bool
    priority: int
    conditions: tuple[Mapping[str, Any], ...]
    prices: Mapping[str, float]

    def applies(self, usage: Mapping[str, int], parameters: Mapping[str, Any]) -> bool:
        """Return whether every condition of the tier holds."""
        return all(_holds(condition, usage, parameters) for condition in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the table.

    Attributes:
        model_id: Its id.
        pattern: What a whole name must match.
        prices: The prices of the default tier in USD, by usage key.
        price_texts: The same as text, in the form of the API.
        tiers: All tiers with their own prices and conditions.
        wire: The model as ``GET /api/public/models`` answers it.
        tiers: The default tier first.
    """

    model_id: str
    pattern: re.Pattern[str]
    prices: Mapping[str, float]
    price_texts: Mapping[str, str]
    tiers: tuple[PricingTier, ...]
    wire: Mapping[str, Any]

    def tier_for(self, usage: Mapping[str, int], parameters: Mapping[str, Any]) -> PricingTier | None:
        """Return the tier that prices a call, None for a model without prices."""
        special = sorted((tier for tier in self.tiers if not tier.is_default), key=lambda tier: tier.priority)
        default = [tier for tier in self.tiers if tier.is_default]
        return next(
            (tier for tier in (*special, *default) if tier.is_default or tier.applies(usage, parameters)),
            None,
        )


def list_models() -> tuple[Model, ...]:
    """Return the table in the order of the models endpoint."""
    return _table()


@lru_cache(maxsize=1024)
def find_model(name: str) -> Model | None:
    """Return the model that ``name`` means; the newest where several match."""
    matching = [model for model in _table() if model.pattern.fullmatch(name)]
    return max(matching, key=lambda model: model.wire["startDate"] or "", default=None)


def cut_cost(cost: float, count: int = 1) -> float:
    """Return ``count`` times a cost with at most 12 digits after the point, cut and not rounded."""
    # As decimals: 3 times 1.5e-7 is a little less than 4.5e-7 in floating point, and would be cut.
    return int(Decimal(repr(cost)) * count * _COST_SCALE) / _COST_SCALE


@lru_cache(maxsize=1)
def _table() -> tuple[Model, ...]:
    text = files("research_kit.store").joinpath("model_prices.json").read_text(encoding="utf-8")
    return tuple(_model(entry) for entry in json.loads(text))


def _model(entry: dict[str, Any]) -> Model:
    tiers = tuple(
        PricingTier(
            tier_id=tier["id"],
            name=tier["name"],
            is_default=tier["isDefault"],
            priority=tier["priority"],
            conditions=tuple(tier["conditions"]),
            prices=tier["prices"],
        )
        for tier in entry["pricingTiers"]
    )
    prices = next((tier.prices for tier in tiers if tier.is_default), {})
    wire = {
        **entry,
        "createdAt": "2024-01-01T00:00:00.000Z",
        "isLangfuseManaged": True,
        "prices": {key: {"price": price} for key, price in prices.items()},
    }
    return Model(
        model_id=entry["id"],
        # The expressions begin with (?i)^ and end with $.
        pattern=re.compile(entry["matchPattern"]),
        prices=prices,
        price_texts={key: number_text(price) for key, price in prices.items()},
        tiers=tiers,
        wire=wire,
    )


def _holds(condition: Mapping[str, Any], usage: Mapping[str, int], parameters: Mapping[str, Any]) -> bool:
    if condition.get("source") == "model_parameters":
        return parameters.get(condition["key"]) in condition["values"]
    flags = 0 if condition["caseSensitive"] else re.IGNORECASE
    pattern = re.compile(condition["usageDetailPattern"], flags)
    tokens = sum(count for key, count in usage.items() if pattern.search(key))
    return bool(tokens > condition["value"])

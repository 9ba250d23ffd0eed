"""What a span of this process tells of an LM call: in Langfuse's words, or in OpenInference's.

Owns the reading of spans as they end, for all that counts before a server has them; adds no calls up.
Invariant: what a span does not tell is missing and never zero; what it tells is what a server makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.session.attribute_names import OBSERVATION

__all__ = ["LMUsage", "is_lm_call", "model_name"]

_TYPES = frozenset({"generation", "embedding"})
_OPENINFERENCE_KINDS = frozenset({"LLM", "EMBEDDING"})
_OPENINFERENCE_TOKENS = {"input": "llm.token_count.prompt", "output": "llm.token_count.completion"}
_OPENINFERENCE_COSTS = {"total": "llm.cost.total"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LMUsage:
    """What one LM call used.

    Attributes:
        tokens: By kind, as ``input`` or ``input_cached_tokens``; empty when the span does not tell.
        costs: In US dollars, by kind; empty when the span does not tell.
    """

    tokens: Mapping[str, float]
    costs: Mapping[str, float]

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> LMUsage:
        """Read the attributes of a span."""
        return cls(
            tokens=_numbers(attributes.get(OBSERVATION + "usage_details"))
            or _named(attributes, _OPENINFERENCE_TOKENS),
            costs=_numbers(attributes.get(OBSERVATION + "cost_details"))
            or _named(attributes, _OPENINFERENCE_COSTS),
        )

    @property
    def input_tokens(self) -> int:
        """All tokens sent, cached ones included."""
        return int(sum(count for kind, count in self.tokens.items() if "input" in kind))

    @property
    def output_tokens(self) -> int:
        """All tokens answered, reasoning included."""
        return int(sum(count for kind, count in self.tokens.items() if "output" in kind))

    @property
    def total_tokens(self) -> int:
        """The total that the span tells, else input and output."""
        return int(self.tokens.get("total", self.input_tokens + self.output_tokens))

    @property
    def cost_usd(self) -> float | None:
        """The total that the span tells, else the sum of the parts; None when it is not known."""
        return self.costs.get("total", sum(self.costs.values()) if self.costs else None)


def is_lm_call(attributes: Mapping[str, Any]) -> bool:
    """Say whether a span is a call of a language or embedding model."""
    own_type = attributes.get(OBSERVATION + "type")
    if own_type:
        return own_type in _TYPES
    return attributes.get("openinference.span.kind") in _OPENINFERENCE_KINDS


def model_name(attributes: Mapping[str, Any]) -> str:
    """Return the model of an LM call; empty when the span does not tell."""
    return str(attributes.get(OBSERVATION + "model.name") or attributes.get("llm.model_name") or "")


def _named(attributes: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, float]:
    return {kind: attributes[key] for kind, key in keys.items() if key in attributes}


def _numbers(text: object) -> dict[str, float]:
    parsed = json.loads(text) if isinstance(text, str) else {}
    numbers = parsed.items() if isinstance(parsed, dict) else ()
    return {kind: number for kind, number in numbers if isinstance(number, int | float)}

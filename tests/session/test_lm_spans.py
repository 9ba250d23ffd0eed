"""What an LM call used is read from a span of this process as a server reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from research_kit.session.lm_spans import LMUsage, is_lm_call, model_name
from research_kit.store.usage import read_consumption

OWN = "langfuse.observation."
CALLS: dict[str, dict[str, Any]] = {
    "with cached tokens and a total": {
        OWN + "type": "generation",
        OWN + "usage_details": json.dumps({"input": 7, "input_cached_tokens": 3, "output": 2, "total": 12}),
        OWN + "cost_details": json.dumps({"total": 0.5}),
    },
    "cost in parts": {
        OWN + "type": "embedding",
        OWN + "usage_details": json.dumps({"input": 1, "output": 2}),
        OWN + "cost_details": json.dumps({"input": 0.25, "output": 0.5}),
    },
    "OpenInference": {
        "openinference.span.kind": "LLM",
        "llm.token_count.prompt": 5,
        "llm.token_count.completion": 4,
        "llm.cost.total": 0.125,
    },
    "nothing told": {OWN + "type": "generation"},
}


@pytest.mark.parametrize("attributes", CALLS.values(), ids=CALLS)
def test_usage_is_what_the_server_reads(attributes: dict[str, Any]) -> None:
    """Tokens and cost are those of the stored observation, and unknown where its are."""
    used, stored = LMUsage.of(attributes), read_consumption(attributes, "", {})
    assert is_lm_call(attributes)
    assert (used.input_tokens, used.output_tokens) == (stored.tokens_of("input"), stored.tokens_of("output"))
    assert used.total_tokens == stored.usage.get("total", 0)
    assert used.cost_usd == stored.cost.get("total")


@pytest.mark.parametrize(
    "attributes",
    [{}, {OWN + "type": "tool"}, {"openinference.span.kind": "TOOL"}],
    ids=["plain", "tool", "OpenInference tool"],
)
def test_other_spans_are_no_calls(attributes: dict[str, Any]) -> None:
    """Only calls of models count, and the type in Langfuse's words decides where there is one."""
    assert not is_lm_call(attributes)
    assert is_lm_call({**attributes, OWN + "type": "generation"})
    assert not is_lm_call({"openinference.span.kind": "LLM", OWN + "type": "chain"})


def test_model_has_one_name() -> None:
    """The model is found under the name of either convention."""
    assert model_name({OWN + "model.name": "a", "llm.model_name": "b"}) == "a"
    assert (model_name({"llm.model_name": "b"}), model_name({})) == ("b", "")

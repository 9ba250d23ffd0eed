"""What a span of this process is and used is read as the store reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Status, StatusCode

from research_kit.counting import Facts
from research_kit.session.span_figures import span_figures

OWN = "langfuse.observation."
OPENAI_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "completion_tokens_details": {"reasoning_tokens": 40},
}
SPANS: dict[str, tuple[dict[str, Any], Facts]] = {
    "with cached tokens and a total": (
        {
            OWN + "type": "generation",
            OWN + "usage_details": json.dumps(
                {"input": 7, "input_cached_tokens": 3, "output": 2, "total": 12}
            ),
            OWN + "cost_details": json.dumps({"total": 0.5}),
        },
        Facts("GENERATION", "s", 0.5, 10, 2, 12),
    ),
    "cost in parts": (
        {
            OWN + "type": "embedding",
            OWN + "usage_details": json.dumps({"input": 1, "output": 2}),
            OWN + "cost_details": json.dumps({"input": 0.25, "output": 0.5}),
        },
        Facts("EMBEDDING", "s", 0.75, 1, 2, 3),
    ),
    "OpenAI's shape, priced by the table": (
        {
            OWN + "type": "generation",
            OWN + "model.name": "gpt-4o-mini",
            OWN + "usage_details": json.dumps({"prompt_tokens": 1000, "completion_tokens": 100}),
        },
        Facts("GENERATION", "s", 0.00021, 1000, 100, 1100),
    ),
    "OpenInference": (
        {
            "openinference.span.kind": "LLM",
            "llm.token_count.prompt": 5,
            "llm.token_count.completion": 4,
            "llm.cost.total": 0.125,
        },
        Facts("GENERATION", "s", 0.125, 5, 4, 9),
    ),
    "nothing told": ({OWN + "type": "generation"}, Facts("GENERATION", "s")),
    "plain": ({}, Facts("SPAN", "s")),
    "tool": ({OWN + "type": "tool"}, Facts("TOOL", "s")),
    "MCP server": (
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"},
        Facts("TOOL", "look"),
    ),
    "a type of its own wins": (
        {"openinference.span.kind": "LLM", OWN + "type": "chain"},
        Facts("CHAIN", "s"),
    ),
}


def _span(attributes: dict[str, Any]) -> ReadableSpan:
    span = TracerProvider().get_tracer("t").start_span("s", attributes=attributes)
    assert isinstance(span, ReadableSpan)
    return span


@pytest.mark.parametrize(("attributes", "expected"), SPANS.values(), ids=SPANS)
def test_figures_are_what_the_store_keeps(attributes: dict[str, Any], expected: Facts) -> None:
    """Type, name, tokens and cost are those of the stored observation, and unknown where its are."""
    assert span_figures(_span(attributes)).facts == expected


def test_model_and_failure_are_read() -> None:
    """The model is found under the name of either convention, and a failed span says why."""
    assert span_figures(_span({OWN + "model.name": "a", "llm.model_name": "b"})).model == "a"
    assert span_figures(_span({"llm.model_name": "b"})).model == "b"
    failed = TracerProvider().get_tracer("t").start_span("s")
    failed.set_status(Status(StatusCode.ERROR, "no"))
    read = span_figures(failed)  # type: ignore[arg-type]
    assert (read.facts.is_error, read.status_message) == (True, "no")

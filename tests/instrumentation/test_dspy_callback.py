"""DSPy calls become observations with the right type, parent, tokens and cost."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_lm import Reply, ScriptedLM, adapter_reply, running_lm

from research_kit.instrumentation.dspy_callback import ObservationCallback
from research_kit.instrumentation.free_models import declare_free_models

ANSWER = "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"


class Observed:
    """What ended so far, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.all() if span.name == name]
        return span

    def value(self, name: str, key: str) -> Any:
        text = (self.one(name).attributes or {}).get(f"langfuse.observation.{key}")
        return None if text is None else json.loads(str(text))


@pytest.fixture
def observed() -> Iterator[tuple[Observed, ObservationCallback]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    callback = ObservationCallback(get_tracer=lambda: provider.get_tracer("langfuse-sdk"))
    with dspy.context(callbacks=[callback]):
        yield Observed(exporter), callback


@pytest.fixture
def server() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()


def lm_of(server: ScriptedLM, model: str = "openai/gpt-4o-mini", **options: Any) -> dspy.LM:
    options = {"cache": False, "num_retries": 0, **options}
    return dspy.LM(model, api_base=server.base_url, api_key="test", **options)


def test_predict_is_a_chain_with_a_generation(observed: Any, server: ScriptedLM) -> None:
    """A prediction is one chain with one generation below it, with input, output, tokens and cost."""
    seen, _ = observed
    server.script(ANSWER)
    with dspy.context(lm=lm_of(server, temperature=0.5)):
        assert dspy.Predict("question -> answer")(question="sky?").answer == "blue"
    chain, generation = seen.one("Predict"), seen.one("openai/gpt-4o-mini")
    assert generation.parent is not None
    assert generation.parent.span_id == chain.context.span_id
    assert chain.attributes["langfuse.observation.type"] == "chain"
    assert seen.value("Predict", "input") == {"question": "sky?"}
    assert seen.value("Predict", "output") == {"answer": "blue"}
    assert generation.attributes["langfuse.observation.type"] == "generation"
    usage = seen.value("openai/gpt-4o-mini", "usage_details")
    assert usage["output"] == 9
    assert usage["total"] == usage["input"] + 9
    # gpt-4o-mini: 0.15 and 0.60 US dollars per million tokens.
    expected_usd = (usage["input"] * 0.15 + 9 * 0.60) / 1e6
    assert seen.value("openai/gpt-4o-mini", "cost_details")["total"] == pytest.approx(expected_usd)
    assert seen.value("openai/gpt-4o-mini", "model.parameters") == {"temperature": 0.5}


def test_key_is_not_recorded(observed: Any, server: ScriptedLM) -> None:
    """The provider's key is in no observation."""
    seen, _ = observed
    server.script(ANSWER)
    with dspy.context(
        lm=dspy.LM("openai/gpt-4o-mini", api_base=server.base_url, api_key="sk-very-secret", cache=False)
    ):
        dspy.Predict("question -> answer")(question="sky?")
    assert all("sk-very-secret" not in str(span.attributes) for span in seen.all())


def test_cached_answer_costs_nothing(observed: Any, server: ScriptedLM) -> None:
    """An answer from DSPy's cache is marked, uses no tokens and costs 0."""
    seen, _ = observed
    server.script(ANSWER)
    with dspy.context(lm=lm_of(server, cache=True)):
        for _ in range(2):
            dspy.Predict("question -> answer")(question="what is cached?")
    first, second = (span.attributes for span in seen.all() if span.name == "openai/gpt-4o-mini")
    assert first["langfuse.observation.metadata.cache_hit"] == "false"
    assert second["langfuse.observation.metadata.cache_hit"] == "true"
    assert json.loads(second["langfuse.observation.cost_details"]) == {"total": 0.0}
    assert "langfuse.observation.usage_details" not in second
    assert len(server.requests) == 1


def test_unknown_price_is_not_zero(observed: Any, server: ScriptedLM) -> None:
    """A model without a known price has tokens and no cost; one declared free costs 0."""
    seen, _ = observed
    server.script(ANSWER, ANSWER)
    declare_free_models("openai/my-free")
    for model in ("openai/my-secret-model", "openai/my-free-model"):
        with dspy.context(lm=lm_of(server, model)):
            dspy.Predict("question -> answer")(question="sky?")
    assert seen.value("openai/my-secret-model", "cost_details") is None
    assert seen.value("openai/my-secret-model", "usage_details")["total"] > 0
    assert seen.value("openai/my-free-model", "cost_details") == {"total": 0.0}


def test_tool_is_a_tool(observed: Any) -> None:
    """A tool call is a tool observation with its arguments and result."""
    seen, _ = observed

    def add(a: int, b: int) -> int:
        return a + b

    assert dspy.Tool(add)(a=1, b=2) == 3
    assert seen.one("add").attributes["langfuse.observation.type"] == "tool"
    assert seen.value("add", "input") == {"a": 1, "b": 2}
    assert seen.value("add", "output") == 3


def test_the_word_that_react_is_done_is_no_tool_call(observed: Any, server: ScriptedLM) -> None:
    """ReAct ends by calling a tool of its own, which is not observed; one of the user's of that name is."""
    seen, _ = observed
    steps = [("look", "{}"), ("finish", "{}")]
    server.script(
        *[adapter_reply(next_thought="t", next_tool_name=name, next_tool_args=args) for name, args in steps],
        adapter_reply(reasoning="r", answer="a"),
    )
    with dspy.context(lm=lm_of(server)):
        dspy.ReAct("question -> answer", tools=[dspy.Tool(lambda: "seen", name="look")])(question="q")
        dspy.Tool(lambda: "over", name="finish")()
    kinds = [(span.name, span.attributes["langfuse.observation.type"]) for span in seen.all()]
    assert [name for name, kind in kinds if kind == "tool"] == ["look", "finish"]
    assert ("ReAct", "agent") in kinds


def test_failure_is_an_error_on_every_level(observed: Any, server: ScriptedLM) -> None:
    """An LM that fails marks its generation and its module as errors, with the reason."""
    seen, _ = observed
    server.script(Reply(text="overloaded", status=500))
    with dspy.context(lm=lm_of(server)), pytest.raises(Exception, match="overloaded"):
        dspy.Predict("question -> answer")(question="sky?")
    for name in ("Predict", "openai/gpt-4o-mini"):
        attributes = seen.one(name).attributes
        assert attributes["langfuse.observation.level"] == "ERROR"
        assert "overloaded" in attributes["langfuse.observation.status_message"]


async def test_cancelled_call_is_a_warning(observed: Any, server: ScriptedLM) -> None:
    """A call that the user stops is ended and marked as a warning."""
    seen, _ = observed

    class Waiting(dspy.Module):
        async def aforward(self) -> dspy.Prediction:
            await asyncio.sleep(60)
            return dspy.Prediction()

    task = asyncio.create_task(Waiting().acall())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    attributes = seen.one("Waiting").attributes
    assert attributes["langfuse.observation.level"] == "WARNING"
    assert attributes["langfuse.observation.status_message"] == "cancelled"


def test_gathered_calls_keep_their_parents(observed: Any) -> None:
    """Calls that run side by side are siblings below the module that began them."""
    seen, _ = observed

    class Leaf(dspy.Module):
        async def aforward(self, n: int) -> dspy.Prediction:
            await asyncio.sleep(0)
            return dspy.Prediction(n=n)

    class Branch(dspy.Module):
        async def aforward(self) -> dspy.Prediction:
            return dspy.Prediction(all=await asyncio.gather(*(Leaf().acall(n=n) for n in range(3))))

    asyncio.run(Branch().acall())
    branch = seen.one("Branch")
    leaves = [span for span in seen.all() if span.name == "Leaf"]
    assert len(leaves) == 3
    assert {leaf.parent.span_id for leaf in leaves if leaf.parent} == {branch.context.span_id}


def test_calls_of_other_threads_leave_the_context_alone(observed: Any) -> None:
    """A call in another thread is a trace of its own and does not disturb this one."""
    seen, callback = observed

    def go() -> None:
        with dspy.context(callbacks=[callback]):
            dspy.Tool(lambda: 1, name="elsewhere")()

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert seen.one("elsewhere").parent is None

"""What DSPy does beyond a plain call is observed too: streams, data sets, workers, embeddings."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from typing import Any

import dspy
import pytest
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from dspy.utils.usage_tracker import track_usage
from opentelemetry import trace
from scripted_lm import Reply, ScriptedLM, adapter_reply

from research_kit.instrumentation.usage import usage_details

ANSWER = "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"
MODEL = "openai/gpt-4o-mini"
FIRST_TOKEN = "langfuse.observation.completion_start_time"


class Leaf(dspy.Module):
    def forward(self, n: int) -> dspy.Prediction:
        if n < 0:
            raise ValueError("negative")
        return dspy.Prediction(n=n, thread=threading.get_ident())


def lm_of(server: ScriptedLM, model: str = MODEL, **options: Any) -> dspy.LM:
    options = {"cache": False, "num_retries": 0, **options}
    return dspy.LM(model, api_base=server.base_url, api_key="test", **options)


def nanoseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1e9)


@pytest.mark.parametrize("is_async", [True, False])
def test_first_token_of_a_users_stream(seen: Any, scripted: ScriptedLM, is_async: bool) -> None:
    """With dspy.streamify the generation says when its first chunk came, and the stream is unchanged."""
    reply = adapter_reply(pause_before="blue", answer="blue sky")
    scripted.script(reply)
    program = dspy.Predict("question -> answer")
    listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
    text = ""

    async def read() -> None:
        nonlocal text
        streamed = dspy.streamify(program, stream_listeners=listeners, is_async_program=is_async)
        reply.gate.set()
        async for piece in streamed(question="sky?"):
            if isinstance(piece, dspy.streaming.StreamResponse):
                text += piece.chunk

    with dspy.context(lm=lm_of(scripted)):
        asyncio.run(read())
    assert text == "blue sky"
    span = seen.one(MODEL)
    assert span.start_time <= nanoseconds(span.attributes[FIRST_TOKEN]) + 1000 <= span.end_time + 1000


def test_no_stream_has_no_first_token(seen: Any, scripted: ScriptedLM) -> None:
    """A call that is not streamed claims no time to first token."""
    scripted.script(ANSWER)
    with dspy.context(lm=lm_of(scripted)):
        dspy.Predict("question -> answer")(question="sky?")
    assert FIRST_TOKEN not in seen.one(MODEL).attributes


def test_tokens_without_history(seen: Any, scripted: ScriptedLM) -> None:
    """With DSPy's history off a generation still has its tokens, and a cached one is still known."""
    scripted.script(ANSWER)
    with dspy.context(lm=lm_of(scripted, cache=True), disable_history=True):
        for _ in range(2):
            dspy.Predict("question -> answer")(question="history off?")
    first, second = seen.named(MODEL)
    assert '"output": 9' in first.attributes["langfuse.observation.usage_details"]
    assert "langfuse.observation.cost_details" not in first.attributes
    assert first.attributes["langfuse.observation.metadata.cache_hit"] == "false"
    assert second.attributes["langfuse.observation.metadata.cache_hit"] == "true"
    assert second.attributes["langfuse.observation.cost_details"] == '{"total": 0.0}'


def test_retried_call_is_one_generation(seen: Any, scripted: ScriptedLM) -> None:
    """A call that DSPy repeats after a failure is one generation, which succeeded, with its tokens once."""
    scripted.script(Reply(text="overloaded", status=500), ANSWER)
    with dspy.context(lm=lm_of(scripted, num_retries=2)):
        dspy.Predict("question -> answer")(question="sky?")
    assert len(scripted.requests) == 2
    assert seen.value(MODEL, "usage_details")["output"] == 9
    assert "langfuse.observation.level" not in seen.one(MODEL).attributes


async def test_async_call_and_its_cancellation(seen: Any, scripted: ScriptedLM) -> None:
    """An async call is a generation as any other; one that is cancelled is a warning on every level."""
    waiting = adapter_reply(pause_before="blue", answer="it is blue")
    scripted.script(ANSWER, waiting)
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm_of(scripted)):
        await program.acall(question="sky?")
        assert seen.value(MODEL, "usage_details")["output"] == 9
        assert seen.parent_of(seen.one(MODEL)) == "Predict"

        async def read() -> None:
            # To the end in one task: what DSPy opens for a stream must be left by the task that entered it.
            async for _ in dspy.streamify(program, is_async_program=True)(question="sky?"):
                pass

        task = asyncio.ensure_future(read())
        while len(scripted.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while len(seen.named("Predict")) < 2:
            await asyncio.sleep(0.01)
    for name in (MODEL, "Predict"):
        attributes = seen.named(name)[1].attributes
        assert attributes["langfuse.observation.level"] == "WARNING"
        assert attributes["langfuse.observation.status_message"] == "cancelled"


def test_inputs_of_every_kind_are_recorded(seen: Any) -> None:
    """What contains itself, cannot be shown, or is no JSON is recorded as well as it can be."""

    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    around: dict[str, Any] = {
        "nan": float("nan"),
        "big": 10**5000,
        "half": "a\ud800",
        "unshowable": Unshowable(),
    }
    around["itself"] = around
    dspy.Tool(lambda **given: 1, name="strange", args={"given": {}}, arg_types={"given": dict})(given=around)
    recorded = seen.value("strange", "input")["given"]
    assert recorded["nan"] == "nan"
    assert recorded["big"].startswith("0x")
    assert recorded["unshowable"] == "<Unshowable, which cannot be shown: RuntimeError>"
    assert recorded["itself"] == "…"


def test_users_usage_tracker_still_counts(seen: Any, scripted: ScriptedLM) -> None:
    """Observing leaves the user's own usage tracking as it is, once per call."""
    scripted.script(ANSWER, ANSWER)
    with dspy.context(lm=lm_of(scripted)), track_usage() as tracker:
        dspy.Predict("question -> answer")(question="sky?")
    with dspy.context(lm=lm_of(scripted), track_usage=True):
        usage = dspy.Predict("question -> answer")(question="sky?").get_lm_usage()
    assert [entry["completion_tokens"] for entry in tracker.usage_data[MODEL]] == [9]
    assert usage[MODEL]["completion_tokens"] == 9


def test_settings_are_restored(seen: Any, scripted: ScriptedLM) -> None:
    """After a call, failed ones too, DSPy's settings and the current span are what they were."""
    scripted.script(ANSWER, Reply(text="overloaded", status=500))
    with dspy.context(lm=lm_of(scripted)):
        before = dict(dspy.settings.config)
        dspy.Predict("question -> answer")(question="sky?")
        with pytest.raises(Exception, match="overloaded"):
            dspy.Predict("question -> answer")(question="sky?")
        assert dict(dspy.settings.config) == before
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("model", ["openrouter/openai/gpt-4o-mini", "deepseek/deepseek-chat"])
def test_cost_of_a_provider_behind_a_prefix(seen: Any, scripted: ScriptedLM, model: str) -> None:
    """Langfuse has no price for names with such a prefix, so the cost that DSPy knows is sent."""
    scripted.script(ANSWER)
    with dspy.context(lm=lm_of(scripted, model)):
        dspy.Predict("question -> answer")(question="sky?")
    assert seen.value(model, "cost_details")["total"] > 0
    assert seen.one(model).attributes["langfuse.observation.model.name"] == model


def test_parallel_is_one_tree(seen: Any) -> None:
    """The workers of dspy.Parallel are below it, at top level, below a span, and one in the other."""
    tasks = [(Leaf(), {"n": n}) for n in range(3)]

    def run(pairs: Any) -> Any:
        return dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)

    run(tasks)
    assert [seen.parent_of(span) for span in seen.named("Leaf")] == ["Parallel"] * 3
    assert seen.one("Parallel").parent is None
    assert seen.value("Parallel", "input") == {"call_count": 3}
    with seen.tracer.start_as_current_span("cell"):
        run([(dspy.Parallel(num_threads=2, disable_progress_bar=True), [*tasks])] * 2)
    inner_and_outer = seen.named("Parallel")[1:]
    assert sorted(str(seen.parent_of(span)) for span in inner_and_outer) == ["Parallel", "Parallel", "cell"]
    assert len({span.context.trace_id for span in [*inner_and_outer, *seen.named("Leaf")[3:]]}) == 1


def test_batch_is_one_tree(seen: Any) -> None:
    """Module.batch is a parallel run too; a failing task is an error and the others are not."""
    examples = [dspy.Example(n=n).with_inputs("n") for n in (1, -1, 2)]
    Leaf().batch(examples, num_threads=2, disable_progress_bar=True)
    leaves = seen.named("Leaf")
    assert [seen.parent_of(span) for span in leaves] == ["Parallel"] * 3
    assert sorted(str(span.attributes.get("langfuse.observation.level")) for span in leaves) == [
        "ERROR",
        "None",
        "None",
    ]


def test_evaluation_is_an_evaluator(seen: Any) -> None:
    """dspy.Evaluate is an evaluator with its score; its workers are below it, also within a parallel run."""
    examples = [dspy.Example(n=n).with_inputs("n") for n in (1, 2)]
    evaluate = dspy.Evaluate(devset=examples, metric=lambda example, made: example.n == made.n, num_threads=2)
    evaluate(Leaf())
    assert seen.kind("Evaluate") == "evaluator"
    assert seen.value("Evaluate", "input") == {"metric": "<lambda>", "devset": "2 items", "program": "Leaf"}
    assert seen.value("Evaluate", "output") == {"score": 100.0}
    assert [seen.parent_of(span) for span in seen.named("Leaf")] == ["Evaluate"] * 2
    dspy.Parallel(num_threads=2, disable_progress_bar=True)([(evaluate, (Leaf(),))])
    assert [seen.parent_of(span) for span in seen.named("Leaf")] == ["Evaluate"] * 4
    assert seen.parent_of(seen.named("Evaluate")[1]) == "Parallel"


def test_optimiser_is_a_chain(seen: Any) -> None:
    """The run of an optimiser is a chain, with its data sets by size."""
    examples = [dspy.Example(question="q", answer="a").with_inputs("question")]
    dspy.LabeledFewShot(k=1).compile(dspy.Predict("question -> answer"), trainset=examples)
    assert seen.kind("LabeledFewShot") == "chain"
    assert seen.value("LabeledFewShot", "input")["trainset"] == "1 items"
    assert seen.value("LabeledFewShot", "output") == "Predict"


async def test_embeddings_and_search(seen: Any) -> None:
    """Embedders are embeddings with model and shape, in async calls too; searching them is a retriever."""

    def two_numbers(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    embedder = dspy.Embedder(two_numbers, caching=False)
    assert (await embedder.acall(["a", "bb"])).shape == (2, 2)
    assert seen.kind("two_numbers") == "embedding"
    assert seen.one("two_numbers").attributes["langfuse.observation.model.name"] == "two_numbers"
    assert seen.value("two_numbers", "input") == ["a", "bb"]
    assert seen.value("two_numbers", "output") == {"shape": [2, 2]}
    search = dspy.Embeddings(corpus=["a", "bbbb"], embedder=embedder, k=1)
    assert search("aaaaa").passages
    assert seen.kind("Embeddings") == "retriever"
    assert seen.value("Embeddings", "input") == "aaaaa"


def test_without_callback_nothing_changes(seen: Any) -> None:
    """Wrapped methods of DSPy only pass the call on when DSPy is not observed."""
    with dspy.context(callbacks=[]):
        [result] = dspy.Parallel(num_threads=1, disable_progress_bar=True)([(Leaf(), {"n": 1})])
        assert dspy.Embedder(lambda texts: [[1.0]] * len(texts), caching=False)("a").shape == (1,)
    assert result.n == 1
    assert not seen.all()


def test_other_callbacks_see_no_difference(seen: Any) -> None:
    """A callback of the user's gets the calls it always got, with the parents it always got."""
    calls: list[tuple[str, Any]] = []

    class Mine(BaseCallback):
        def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            calls.append((type(instance).__name__, ACTIVE_CALL_ID.get()))

    with dspy.context(callbacks=[*dspy.settings.callbacks, Mine()]):
        dspy.Parallel(num_threads=1, disable_progress_bar=True)([(Leaf(), {"n": 1})])
    assert calls == [("Leaf", None)]


@pytest.mark.parametrize("number", [10**400, 1e999, -1e999, float("nan"), -5, "many", None, [1], {"a": 1}])
def test_tokens_that_no_call_can_have_count_as_none(number: object) -> None:
    """Whatever the server of a language model says, the call is recorded with the tokens that make sense."""
    usage = {
        "prompt_tokens": number,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": number},
    }
    assert usage_details(usage) == {"input": 0, "output": 3, "total": 3}

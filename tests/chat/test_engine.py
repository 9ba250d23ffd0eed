"""The conversation answers, streams, stops, fails and counts, with one trace per message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import httpx
import pytest
from scripted_lm import Reply, ScriptedLM, adapter_reply, running_lm

import research_kit as rk
from research_kit.chat.engine import Conversation
from research_kit.chat.events import (
    Delta,
    MessageCancelled,
    MessageFailed,
    MessageFinished,
    MessageStarted,
    ToolFinished,
    ToolStarted,
)
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.session import kernel_session
from research_kit.store import StoreAddress, ensure_running, stop_store

DEADLINE_S = 20.0


def answer(text: str, *, pause_before: str | None = None) -> Reply:
    return adapter_reply(pause_before, answer=text)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("engine") / "data"
    yield path
    stop_store(path)


@pytest.fixture
def store(data_dir: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreAddress]:
    """One store for the module: the process has one Langfuse client, which keeps its first address."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    address = ensure_running(data_dir)
    rk.new_session()
    yield address
    rk.unbind()


@pytest.fixture
def server() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()


class Simple(dspy.Module):
    """An assistant with one predictor and, on request, one tool."""

    def __init__(self, tool: dspy.Tool | None = None) -> None:
        super().__init__()
        self.tool = tool
        self.predict = dspy.Predict("question, history: dspy.History -> answer")

    async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
        if self.tool is not None:
            await self.tool.acall(text=question)
        return await self.predict.acall(question=question, history=history)


def conversation_of(server: ScriptedLM, assistant: dspy.Module | None = None) -> Conversation:
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.base_url, api_key="test", cache=False, num_retries=0)
    return Conversation(lm=lm, assistant=assistant or Simple())


def wait_until(condition: Callable[[], bool], state: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.02)


def read_trace(address: StoreAddress, trace_id: str, count: int) -> list[dict[str, Any]]:
    assert rk.flush()
    rows: list[dict[str, Any]] = []

    def is_complete() -> bool:
        nonlocal rows
        reply = httpx.get(
            f"{address.base_url}/api/public/v2/observations",
            params={"traceId": trace_id, "fields": "core,basic,time,io,metadata,usage,trace_context"},
            auth=(address.public_key, address.secret_key),
        )
        rows = reply.raise_for_status().json()["data"]
        return len(rows) >= count

    wait_until(is_complete, lambda: rows)
    return rows


def test_answers_and_streams(store: StoreAddress, server: ScriptedLM) -> None:
    """A message yields its start, the answer piece by piece, and the whole answer with its cost."""
    server.script(answer("The sky is blue because of scattering."))
    first, *deltas, last = conversation_of(server).send("Why is the sky blue?")
    assert isinstance(first, MessageStarted)
    assert (first.message_number, first.text) == (1, "Why is the sky blue?")
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert len(deltas) > 1
    text = ""
    for delta in deltas:
        assert delta.offset == len(text)
        text += delta.text
    assert text.strip() == "The sky is blue because of scattering."
    assert isinstance(last, MessageFinished)
    assert last.answer == "The sky is blue because of scattering."
    assert last.usage.input_tokens > 0
    assert last.usage.cost_usd is not None


def test_message_is_one_trace(store: StoreAddress, server: ScriptedLM) -> None:
    """A message is one trace named chat in the session, with tags, number, lengths, tool and generation."""
    server.script(answer("blue"))
    tool = dspy.Tool(lambda text: text.upper(), name="shout", arg_types={"text": str})
    conversation = conversation_of(server, Simple(tool))
    finished = conversation.send("sky?").result()
    assert finished.trace_id is not None
    rows = read_trace(store, finished.trace_id, 5)
    by_name = {row["name"]: row for row in rows}
    assert set(by_name) == {"chat", "Simple", "shout", "Predict", "openai/gpt-4o-mini"}
    root = by_name["chat"]
    assert root["parentObservationId"] is None
    assert {row["sessionId"] for row in rows} == {rk.current_session_id()}
    assert {row["traceName"] for row in rows} == {"chat"}
    assert (json.loads(root["input"]), json.loads(root["output"])) == ("sky?", "blue")
    assert root["metadata"]["message_number"] == 1
    assert (root["metadata"]["input_length"], root["metadata"]["output_length"]) == (4, 4)
    assert set(root["tags"]) >= {"jupyter", "chat"}
    assert by_name["openai/gpt-4o-mini"]["completionStartTime"] is not None


def test_tool_calls_are_events(store: StoreAddress, server: ScriptedLM) -> None:
    """A tool call shows its arguments when it begins, and its result and duration when it ends."""
    server.script(answer("done"))
    tool = dspy.Tool(lambda text: text.upper(), name="shout", arg_types={"text": str})
    events = list(conversation_of(server, Simple(tool)).send("hello"))
    [started] = [event for event in events if isinstance(event, ToolStarted)]
    [finished] = [event for event in events if isinstance(event, ToolFinished)]
    assert (started.name, started.arguments) == ("shout", {"text": "hello"})
    assert (finished.result, finished.is_error) == ("HELLO", False)


def test_history_reaches_the_next_message(store: StoreAddress, server: ScriptedLM) -> None:
    """The next question is asked with the questions and answers before it."""
    server.script(answer("blue"), answer("as I said"))
    conversation = conversation_of(server)
    conversation.ask("What colour is the sky?")
    conversation.ask("Are you sure?")
    asked = json.dumps(server.requests[-1]["messages"])
    assert "What colour is the sky?" in asked
    assert "blue" in asked


def test_stop_keeps_what_had_arrived(store: StoreAddress, server: ScriptedLM) -> None:
    """Stopping keeps the words so far, closes the trace as a warning, and frees the conversation."""
    server.script(answer("one two three never ends", pause_before="never"), answer("again"))
    conversation = conversation_of(server)
    turn = conversation.send("Count.")
    events = []
    for event in turn:
        events.append(event)
        if isinstance(event, Delta):
            turn.cancel()
    last = events[-1]
    assert isinstance(last, MessageCancelled)
    assert last.answer.startswith("one")
    assert last.trace_id is not None
    rows = read_trace(store, last.trace_id, 4)
    assert {row["level"] for row in rows} == {"WARNING"}
    assert conversation.ask("And now?") == "again"


def test_stop_before_the_first_step(store: StoreAddress, server: ScriptedLM) -> None:
    """A turn that is stopped at once still ends."""
    turn = conversation_of(server).send("Hello?")
    turn.cancel()
    turn.cancel()
    assert isinstance(turn.wait(), MessageCancelled)
    assert not turn.is_running


def test_failure_is_a_message(store: StoreAddress, server: ScriptedLM) -> None:
    """An LM that fails ends the turn with the cause and what to do; the trace is an error."""
    server.script(Reply(text="the model is overloaded", status=500))
    turn = conversation_of(server).send("Hello?")
    failed = turn.wait()
    assert isinstance(failed, MessageFailed)
    assert "the model is overloaded" in failed.error
    assert "RESEARCH_KIT_LM" in failed.error
    with pytest.raises(ResearchKitError, match="'Hello\\?' was not answered"):
        turn.result()
    assert failed.trace_id is not None
    rows = read_trace(store, failed.trace_id, 4)
    assert {row["level"] for row in rows} == {"ERROR"}


def test_sums_are_those_of_the_messages(store: StoreAddress, server: ScriptedLM) -> None:
    """The totals count every message and add up tokens and cost."""
    server.script(answer("one"), Reply(text="no", status=500), answer("three"))
    conversation = conversation_of(server)
    endings = [conversation.send(text).wait() for text in ("a", "b", "c")]
    totals = conversation.totals
    assert totals.message_count == 3
    assert totals.usage.input_tokens == sum(ending.usage.input_tokens for ending in endings)
    assert totals.usage.cost_usd == pytest.approx(sum(ending.usage.cost_usd or 0 for ending in endings))
    assert totals.latency_p50_s is not None


def test_second_message_waits_for_the_first(store: StoreAddress, server: ScriptedLM) -> None:
    """While a message is being answered, another is refused with what to do."""
    server.script(answer("this never ends", pause_before="never"))
    conversation = conversation_of(server)
    turn = conversation.send("first")
    wait_until(lambda: bool(server.requests), lambda: server.requests)
    with pytest.raises(ResearchKitError, match=r"'first' is still being answered\. Wait for it"):
        conversation.send("second")
    turn.cancel()
    assert isinstance(turn.wait(), MessageCancelled)


def test_empty_message_is_refused(server: ScriptedLM) -> None:
    """An empty message is an error and counts for nothing."""
    conversation = conversation_of(server)
    with pytest.raises(ConfigError, match="is empty"):
        conversation.send("  \n")
    assert conversation.totals.message_count == 0


def test_assistant_without_answer_is_explained(store: StoreAddress, server: ScriptedLM) -> None:
    """A module that returns no answer is told what is missing."""

    class Wrong(dspy.Module):
        async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
            return dspy.Prediction(reply="hello")

    failed = conversation_of(server, Wrong()).send("Hello?").wait()
    assert isinstance(failed, MessageFailed)
    assert "Wrong returned ['reply'], but no 'answer'" in failed.error


def test_works_without_a_session(server: ScriptedLM) -> None:
    """With nothing bound the conversation answers and nothing is traced."""
    rk.unbind()
    server.script(answer("blue"))
    finished = conversation_of(server).send("sky?").result()
    assert finished.answer == "blue"
    assert finished.trace_id is None
    assert kernel_session().telemetry is None

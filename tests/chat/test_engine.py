"""The conversation answers, streams, stops, fails and counts, with one trace per message."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from conversations import Simple, answer, conversation_of, read_trace, wait_until
from scripted_lm import Reply, ScriptedLM

import research_kit as rk
from research_kit.chat.events import (
    Delta,
    MessageCancelled,
    MessageFailed,
    MessageFinished,
    MessageStarted,
    ToolFinished,
    ToolStarted,
)
from research_kit.chat.message_trace import query_type
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.session import kernel_session
from research_kit.store import StoreAddress


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
    assert set(root["tags"]) >= {"jupyter", "chat", "general"}
    assert (root["metadata"]["query_type"], root["metadata"]["lm"]) == ("general", "openai/gpt-4o-mini")
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


def test_messages_wait_their_turn(store: StoreAddress, server: ScriptedLM) -> None:
    """Messages sent during an answer are answered in order, each with what was answered before it."""
    held = answer("this is held", pause_before="held")
    server.script(held, answer("second answer"), answer("third answer"))
    conversation = conversation_of(server)
    first = conversation.send("first")
    wait_until(lambda: bool(server.requests), lambda: server.requests)
    second, dropped, third = (conversation.send(text) for text in ("second", "dropped", "third"))
    assert conversation.waiting_count == 3
    with pytest.raises(ResearchKitError, match=r"'first' is still being answered\. Wait for it"):
        conversation.resend(1, "again")
    dropped.cancel()
    ended = dropped.wait()
    assert isinstance(ended, MessageCancelled)
    assert ended.trace_id is None
    held.gate.set()
    assert [turn.result().answer for turn in (first, second, third)] == [
        "this is held",
        "second answer",
        "third answer",
    ]
    assert "second answer" in json.dumps(server.requests[-1]["messages"])


def test_too_many_waiting_messages_are_refused(store: StoreAddress, server: ScriptedLM) -> None:
    """A loop that sends without waiting is told so, before a hundred calls are paid for."""
    server.script(answer("this never ends", pause_before="never"))
    conversation = conversation_of(server)
    turns = [conversation.send(str(number)) for number in range(9)]
    wait_until(lambda: bool(server.requests), lambda: server.requests)
    with pytest.raises(ResearchKitError, match="8 messages wait already"):
        conversation.send("one more")
    for turn in reversed(turns):
        turn.cancel()
    assert {type(turn.wait()) for turn in turns} == {MessageCancelled}


def test_history_is_trimmed_by_tokens(store: StoreAddress, server: ScriptedLM) -> None:
    """A question carries the newest messages that fit, without a gap."""
    server.script(*(answer(f"answer-{number} " + "x " * 60) for number in range(4)))
    conversation = conversation_of(server, max_history_tokens=60)
    for number in range(4):
        conversation.ask(f"question-{number}")
    asked = json.dumps(server.requests[-1]["messages"])
    assert [f"answer-{number}" in asked for number in range(3)] == [False, False, True]


def test_resend_begins_anew_from_a_message(store: StoreAddress, server: ScriptedLM) -> None:
    """An edited message is answered without what came after it; the same text gets a new answer."""
    server.script(answer("blue"), answer("green"), answer("red"), answer("pink"))
    conversation = conversation_of(server, cache=True)
    question = f"sky {server.base_url}?"
    conversation.ask(question)
    conversation.ask("grass?")
    assert conversation.resend(2, "blood?").result().answer == "red"
    asked = json.dumps(server.requests[-1]["messages"])
    assert ("blue" in asked, "green" in asked) == (True, False)
    assert conversation.resend(1, question).result().answer == "pink"
    assert "blue" not in json.dumps(server.requests[-1]["messages"])


def test_conversation_goes_on_in_another_kernel(store: StoreAddress, server: ScriptedLM) -> None:
    """After `resume` a conversation made anew knows the messages, the numbers and the sums of the session."""
    server.script(answer("blue"), answer("as I said"))
    first = conversation_of(server)
    first.ask("What colour is the sky?")
    session_id = rk.current_session_id()
    assert session_id is not None
    rk.new_session()
    second = conversation_of(server)
    [message] = second.open_session(session_id)
    assert (message.question, message.answer, message.message_number) == (
        "What colour is the sky?",
        "blue",
        1,
    )
    assert second.totals.usage.input_tokens == first.totals.usage.input_tokens
    assert second.budget.used == first.budget.used
    second.ask("Are you sure?")
    assert "What colour is the sky?" in json.dumps(server.requests[-1]["messages"])
    assert second.totals.message_count == 2
    [known] = [known for known in second.list_sessions() if known.session_id == session_id]
    assert (known.title, known.message_count) == ("What colour is the sky?", 2)
    assert known.usage.input_tokens == second.totals.usage.input_tokens


def test_feedback_is_one_score_that_can_be_taken_back(store: StoreAddress, server: ScriptedLM) -> None:
    """A second thumb replaces the first, and none is left when it is taken back."""
    server.script(answer("blue"))
    conversation = conversation_of(server)
    trace_id = conversation.send("sky?").result().trace_id
    assert trace_id is not None
    conversation.give_feedback(trace_id, 1, "")
    conversation.give_feedback(trace_id, 0, "it is grey")

    def scores() -> list[Any]:
        frame = rk.scores_df()
        return frame[["name", "value", "comment"]].values.tolist()

    wait_until(lambda: scores() == [["helpful", 0.0, "it is grey"]], scores)
    assert [message.feedback for message in conversation.restore()] == [(0, "it is grey")]
    conversation.give_feedback(trace_id, None, "")
    wait_until(lambda: scores() == [], scores)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How many rows has df?", "data"),
        ("Why ```x = 1``` ?", "code"),
        ("KeyError: 'a' - what now?", "code"),
        ("Who wrote R?", "general"),
    ],
)
def test_query_type_tells_what_a_question_is_about(text: str, kind: str) -> None:
    """Questions are told apart by what they show and name."""
    assert query_type(text, {"df": 1, "_": 2, "penguins": 3}) == kind


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

"""The panel while messages are answered: its traits, what it sends, its threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from scripted_panel import PROTOCOL, Browser, finished, started, words

from research_kit._words import UNKNOWN
from research_kit.chat.events import (
    ApprovalNeeded,
    Delta,
    MessageFailed,
    Notice,
    ToolFinished,
    ToolStarted,
    Usage,
)
from research_kit.chat.markdown import render_markdown
from research_kit.chat.ui_transcript import pack_html


def test_panel_shows_a_finished_answer_in_its_traits() -> None:
    """When a turn has ended, the traits hold question, answer, usage, latency and addresses."""
    browser = Browser([started(), *words(3), finished()])
    answer = browser.send_and_wait("hi")
    question = browser.panel.messages[0]
    assert (question["role"], question["text"], question["state"]) == ("user", "hi", "sent")
    expected = {
        "state": "finished",
        "message_number": 1,
        "text": "Hello **you**",
        "html": "<p>Hello <strong>you</strong></p>\n",
        "usage": {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.0012, "unpriced_count": 0},
        "latency_s": 1.5,
        "trace_id": "t1",
        "trace_url": "http://127.0.0.1:1/traces/t1",
    }
    assert {name: answer[name] for name in expected} == expected
    status = browser.panel.status
    assert (status["session_id"], status["message_count"], status["tokens"]) == ("jupyter-1", 1, 120)
    assert (status["cost_usd"], status["latency_p50_s"], status["is_busy"]) == (0.0012, 1.5, False)


def test_panel_streams_few_messages_that_add_up() -> None:
    """Two thousand tokens leave as few messages whose texts, by offset, add up to the answer."""
    deltas = words(2000)
    whole = "".join(delta.text for delta in deltas)
    gate = threading.Event()
    browser = Browser([started(), *deltas, gate, finished(whole)])
    browser.send("hi")
    browser.wait_for_answer(whole)
    gate.set()
    browser.wait_until_idle()
    streamed = [message for message in browser.comm.custom if message["type"] == "delta"]
    text = ""
    for message in streamed:
        assert message["offset"] == len(text)
        text += message["text"]
    assert text == whole
    assert len(streamed) < 100


def test_panel_sends_of_the_end_only_what_is_missing() -> None:
    """Only the last word is still missing: the text before it is there, and so are the whole blocks."""
    text = "First *block*.\n\nThe second block has a line.\n\nThird **block**."
    gate = threading.Event()
    browser = Browser([started(), Delta(text=text, offset=0), gate, finished(text)])
    browser.send("hi")
    browser.wait_for_custom("delta")
    gate.set()
    browser.wait_until_idle()
    [delta] = [message for message in browser.comm.custom if message["type"] == "delta"]
    last = [message for message in browser.comm.custom if message["type"] == "message"][-1]
    whole = ["<p>First <em>block</em>.</p>\n<p>", [16, 44], "</p>\n"]
    assert delta["html"] == whole
    assert (last["keep_text"], last["message"]["text"]) == (len(text) - 10, "**block**.")
    assert last["keep_html"] == delta["html_end"]
    assert last["message"]["html"] == ["<p>Third <strong>block</strong>.</p>\n"]
    assert browser.answer["html"] == _joined([*delta["html"], *last["message"]["html"]], text)


@pytest.mark.parametrize(
    "text",
    [
        "A line of plain prose, long enough.",
        'One "quoted" & <b>escaped</b> line, then **a bold one that is long**, twice: and a long line',
        "[a link with a long text](https://example.org/a-long-address?a=1&b=2)\n\n- a point of the list\n"
        * 3,
        "```python\nprint('a long line')\n```\n\n| a long column | b |\n|---|---|\n| list | 2 |",
        "\U0001f427 a line with a penguin in front \U0001f427\n\n" * 3,
        "",
    ],
    ids=["prose", "marked", "links", "blocks", "astral", "empty"],
)
def test_panel_names_in_html_what_the_text_has(text: str) -> None:
    """The parts make up the same HTML, and nothing that could be markup is named."""
    html = render_markdown(text)
    parts = pack_html(html, text)
    assert _joined(parts, text) == html
    assert not any(set(text[slice(*part)]) & set('<>&"') for part in parts if isinstance(part, tuple))


def _joined(parts: list[Any], text: str) -> str:
    return "".join(part if isinstance(part, str) else text[slice(*part)] for part in parts)


def test_panel_sends_as_much_with_a_long_history_as_with_none() -> None:
    """What a message costs on the wire does not grow with the messages before it."""

    def sent_bytes(browser: Browser) -> int:
        before = browser.comm.byte_count
        browser.send_and_wait("hi")
        return browser.comm.byte_count - before

    turns = [[started(), *words(50), finished("x " * 200)] for _ in range(40)]
    browser = Browser(*turns)
    first = sent_bytes(browser)
    for _ in range(38):
        browser.send_and_wait("hi")
    assert sent_bytes(browser) < 1.5 * first


def test_panel_streams_a_delta_before_the_next_event() -> None:
    """A delta reaches the browser, and the trait that a reload reads, also when nothing follows it."""
    gate = threading.Event()
    browser = Browser([started(), Delta(text="Hel lo", offset=0), gate, finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    [delta] = [message for message in browser.comm.custom if message["type"] == "delta"]
    assert (delta["message_id"], delta["offset"], delta["text"], delta["html"]) == ("a1", 0, "Hel ", [])
    browser.wait_for_answer("Hel ")
    assert browser.panel.get_state("transcript")["transcript"]["messages"][-1]["text"] == "Hel "
    gate.set()
    browser.wait_until_idle()


def test_panel_replaces_text_from_the_offset_of_a_delta() -> None:
    """A delta whose offset is not the end replaces what was there."""
    gate = threading.Event()
    browser = Browser(
        [started(), Delta(text="first\n\ntry", offset=0), Delta(text="second ", offset=0), gate, finished()]
    )
    browser.send("hi")
    browser.wait_for_answer("second ")
    gate.set()
    assert browser.wait_until_idle() is None
    assert browser.answer["text"] == "Hello **you**"


@pytest.mark.parametrize(
    "message", [{"type": "hello", "revision": 0}, {"type": "resync"}], ids=lambda m: m["type"]
)
def test_panel_resends_the_transcript_while_it_streams(message: dict[str, Any]) -> None:
    """A view that opens or misses a delta gets the whole transcript."""
    gate = threading.Event()
    browser = Browser([started(), Delta(text="Hel lo", offset=0), gate, finished()])
    browser.send("hi")
    browser.wait_for_answer("Hel ")
    browser.panel.receive(message)
    assert browser.transcripts[-1]["messages"][-1]["text"] == "Hel "
    gate.set()
    browser.wait_until_idle()


def test_no_part_of_a_secret_is_streamed() -> None:
    """A word is shown when it is whole, so a key that comes in pieces never is, and the text reads on."""
    secret = "sk-proj-abcdefghij0123456789ABCDEFGHIJ"
    said = f"The key is {secret}, keep it."
    pieces = [Delta(text=said[start : start + 5], offset=start) for start in range(0, len(said), 5)]
    gates = [threading.Event() for _ in pieces]
    steps = [step for pair in zip(pieces, gates, strict=True) for step in pair]
    browser = Browser([started(), *steps, finished(said)])
    browser.send("hi")
    for gate in gates:
        time.sleep(0.03)  # longer than events wait for each other
        gate.set()
    browser.wait_until_idle()
    deltas = [message["text"] for message in browser.comm.custom if message["type"] == "delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == "The key is [masked], keep "
    assert browser.answer["text"] == "The key is [masked], keep it."


def test_panel_sends_the_transcript_only_to_views_that_lack_it() -> None:
    """A view that knows the last change is answered shortly; one that does not gets everything."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    browser.panel.receive({"type": "hello", "revision": browser.panel.transcript["revision"]})
    assert browser.comm.custom[-1] == {"type": "ready"}
    assert browser.transcripts == []
    browser.panel.receive({"type": "hello", "revision": 0})
    assert browser.transcripts[-1] == browser.panel.transcript


def test_panel_shows_tools_as_they_run_and_ask() -> None:
    """A tool call is shown when it starts, asks and ends, and stays with the answer."""
    gates = [threading.Event(), threading.Event()]
    call = ToolStarted(call_id="c1", name="delete", arguments={"name": "df"})
    asks = ApprovalNeeded(call_id="c1", name="delete", arguments={"name": "df"})
    result = ToolFinished(call_id="c1", name="delete", result="gone", is_error=False, latency_s=0.25)
    browser = Browser([started(), call, gates[0], asks, gates[1], result, finished()])
    browser.send("hi")
    browser.wait_for_custom("tool")
    tool = browser.comm.custom[-1]["tool"]
    assert (tool["result"], tool["is_asking"]) == (None, False)
    gates[0].set()
    browser.comm.wait_for(lambda: browser.comm.custom[-1].get("tool", {}).get("is_asking", False))
    browser.panel.receive({"type": "decide", "call_id": "c1", "decision": "session"})
    assert browser.engine.calls == [("decide", "c1", "session")]
    gates[1].set()
    browser.wait_until_idle()
    [tool] = browser.answer["tools"]
    assert (tool["result"], tool["is_asking"], tool["texts"]) == ("gone", False, {"latency": "250 ms"})
    assert tool["arguments"] == '{\n  "name": "df"\n}'


def test_panel_stops_an_answer() -> None:
    """Stop ends the turn and keeps what had arrived; a click that comes too late changes nothing."""
    browser = Browser([started(), Delta(text="a long ans", offset=0), threading.Event(), finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    browser.panel.receive(PROTOCOL["to_kernel"]["stop"])
    browser.wait_until_idle()
    assert (browser.answer["state"], browser.answer["text"]) == ("cancelled", "a long ans")
    browser.panel.receive(PROTOCOL["to_kernel"]["stop"])
    assert browser.answer["state"] == "cancelled"


def test_panel_shows_a_waiting_message_and_takes_it_back() -> None:
    """A message that is sent during an answer waits in sight, and can be taken back alone."""
    gate, never = threading.Event(), threading.Event()
    browser = Browser([started(), gate, finished()], [never, started(), finished()])
    browser.send("hi", "r1")
    browser.send("again", "r2")
    assert [message["state"] for message in browser.panel.messages] == ["sent", "running", "sent", "queued"]
    browser.panel.receive({"type": "stop", "message_id": "a2"})
    browser.comm.wait_for(lambda: browser.answer["state"] == "cancelled")
    assert browser.panel.messages[1]["state"] == "running"
    gate.set()
    browser.wait_until_idle()
    assert browser.panel.messages[1]["state"] == "finished"


def test_panel_sends_an_edited_message_again() -> None:
    """Editing a message removes it and what came after; trying again asks the same question."""
    browser = Browser(*[[started(), finished(f"answer {n}")] for n in range(4)])
    browser.send_and_wait("one")
    browser.send_and_wait("two")
    browser.panel.receive({"type": "resend", "request_id": "r3", "message_id": "q1", "text": "uno"})
    browser.wait_until_idle()
    assert [message["text"] for message in browser.panel.messages] == ["uno", "answer 2"]
    browser.panel.receive({"type": "resend", "request_id": "r4", "message_id": "a3", "text": "uno"})
    browser.wait_until_idle()
    assert [message["text"] for message in browser.panel.messages] == ["uno", "answer 3"]
    assert browser.engine.calls == [("resend", 1, "uno"), ("resend", 3, "uno")]
    browser.panel.receive({"type": "resend", "request_id": "r5", "message_id": "q1", "text": "x"})
    assert browser.comm.custom[-1]["type"] == "refused"
    assert "not there any more" in browser.comm.custom[-1]["reason"]


def test_panel_shows_why_the_engine_refuses() -> None:
    """What the engine says about a message it cannot take reaches the browser."""
    browser = Browser()
    browser.send("  ", "r1")
    reason = "The message is empty. Write what you want to know."
    assert browser.comm.custom == [{"type": "refused", "request_id": "r1", "reason": reason}]
    assert browser.panel.messages == []


def test_panel_shows_failures_and_notices() -> None:
    """A turn that fails leaves its error, the next one is taken, and a notice stays beside its answer."""
    failure = MessageFailed(error="No key. Set OPENAI_API_KEY.", usage=Usage(), latency_s=0.1, trace_id=None)
    browser = Browser([started(), failure], [started(), Notice(text="Nearly used."), finished()])
    answer = browser.send_and_wait("hi")
    assert (answer["state"], answer["error"]) == ("failed", "No key. Set OPENAI_API_KEY.")
    assert answer["texts"]["cost"] == UNKNOWN
    answer = browser.send_and_wait("again")
    assert (answer["state"], answer["notice"]) == ("finished", "Nearly used.")


def test_panel_survives_an_engine_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside the engine ends the turn as failed, and is reported as an error of its thread."""
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    browser = Browser(
        [started(), Delta(text="Hel lo", offset=0), RuntimeError("boom")], [started(), finished()]
    )
    answer = browser.send_and_wait("hi")
    assert (answer["state"], answer["text"]) == ("failed", "Hel lo")
    assert "Send the message again" in answer["error"]
    assert [str(error.exc_value) for error in errors] == ["boom"]
    assert browser.send_and_wait("again")["state"] == "finished"


def test_panel_can_carry_any_text() -> None:
    """Half characters and arguments that are not JSON do not keep an answer from the browser."""
    call = ToolStarted(call_id="c1", name="t", arguments={"value": {1, 2}})
    browser = Browser([started(), call, Delta(text="a\ud800", offset=0), finished("b\udfff")])
    assert browser.send_and_wait("hi \ud83d")["text"] == "b?"
    assert browser.engine.sent == ["hi ?"]


def test_panel_close_stops_the_turn() -> None:
    """Closing the panel ends the answer and releases its comm."""
    browser = Browser([started(), Delta(text="Hel lo", offset=0), threading.Event(), finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    browser.panel.close()
    browser.join_thread()
    assert browser.answer["state"] == "cancelled"
    assert browser.panel.comm is None

"""The panel without a browser: its traits, its messages, its thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from comm.base_comm import BaseComm
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from research_kit.chat.events import (
    Delta,
    Event,
    MessageCancelled,
    MessageFailed,
    MessageFinished,
    MessageStarted,
    ToolFinished,
    ToolStarted,
    Usage,
)
from research_kit.chat.panel import ChatPanel, find_asset
from research_kit.chat.ui_format import UNKNOWN
from research_kit.errors import ConfigError, ResearchKitError

DEADLINE_S = 20.0
PROTOCOL = json.loads((Path(__file__).parents[2] / "widgets/chat_panel/protocol.json").read_text())
USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.0012)

Step = Event | threading.Event | Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedTotals:
    message_count: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_p50_s: float | None = None


class ScriptedTurn:
    """Gives the events of its script; waits at each `threading.Event` until it is set."""

    def __init__(self, steps: Sequence[Step], engine: ScriptedEngine) -> None:
        self._steps = steps
        self._engine = engine
        self._cancelled = threading.Event()
        self._answer = ""

    def cancel(self) -> None:
        self._cancelled.set()
        for step in self._steps:
            if isinstance(step, threading.Event):
                step.set()

    def __iter__(self) -> Iterator[Event]:
        for step in self._steps:
            if isinstance(step, threading.Event):
                assert step.wait(DEADLINE_S), "nobody opened the gate of the script"
            elif isinstance(step, Exception):
                raise step
            elif not self._cancelled.is_set():
                yield self._told(step)
            if self._cancelled.is_set():
                yield self._told(
                    MessageCancelled(answer=self._answer, usage=USAGE, latency_s=0.5, trace_id="t1")
                )
                return

    def _told(self, event: Event) -> Event:
        if isinstance(event, Delta):
            self._answer = self._answer[: event.offset] + event.text
        if isinstance(event, MessageFinished | MessageFailed | MessageCancelled):
            self._engine.count(event)
        return event


class ScriptedEngine:
    """An engine whose turns follow a script, and which refuses a message that the script does not have."""

    session_id = "jupyter-1"
    user_id = "ada"
    backend_state = "local"
    session_url = "http://127.0.0.1:1/sessions/jupyter-1"
    lm_name = "scripted/model"

    def __init__(self, *turns: Sequence[Step]) -> None:
        self._turns = list(turns)
        self.totals = ScriptedTotals()
        self.sent: list[str] = []

    def send(self, text: str) -> ScriptedTurn:
        if not text.strip():
            raise ConfigError("The message is empty. Write what you want to know.")
        assert self._turns, f"the script is over, but {text!r} was sent"
        self.sent.append(text)
        self.totals = ScriptedTotals(message_count=len(self.sent), usage=self.totals.usage)
        return ScriptedTurn(self._turns.pop(0), self)

    def trace_url(self, trace_id: str) -> str | None:
        return f"http://127.0.0.1:1/traces/{trace_id}"

    def count(self, event: MessageFinished | MessageFailed | MessageCancelled) -> None:
        self.totals = ScriptedTotals(
            message_count=len(self.sent), usage=event.usage, latency_p50_s=event.latency_s
        )


class RecordingComm(BaseComm):
    """The kernel's end of a comm; keeps what was published."""

    def __init__(self) -> None:
        self._published: list[dict[str, Any]] = []
        self._arrival = threading.Condition()
        super().__init__(target_name="jupyter.widget")

    def publish_msg(self, msg_type: str, data: Any = None, **_keys: Any) -> None:
        with self._arrival:
            # What the browser gets is a copy made now, not the object that the panel goes on changing.
            self._published.append(json.loads(json.dumps({"msg_type": msg_type, **(data or {})})))
            self._arrival.notify_all()

    @property
    def custom(self) -> list[dict[str, Any]]:
        with self._arrival:
            return [message["content"] for message in self._published if message.get("method") == "custom"]

    @property
    def states(self) -> list[dict[str, Any]]:
        with self._arrival:
            return [message["state"] for message in self._published if message.get("method") == "update"]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._arrival:
            arrived = self._arrival.wait_for(condition, DEADLINE_S)
        assert arrived, f"the panel did not get there; last published: {self._published[-3:]}"


class Browser:
    """The other end of a panel: sends what the front end would send, reads what it would get."""

    def __init__(self, *turns: Sequence[Step]) -> None:
        self.engine = ScriptedEngine(*turns)
        self.panel = ChatPanel(self.engine)
        self.comm = RecordingComm()
        self.panel.comm = self.comm

    def send(self, text: str, request_id: str = "r1") -> None:
        self.panel.receive({"type": "send", "request_id": request_id, "text": text})

    def send_and_wait(self, text: str) -> dict[str, Any]:
        self.send(text)
        self.wait_until_idle()
        return self.answer

    def wait_until_idle(self) -> None:
        self.comm.wait_for(lambda: not self.panel.status["is_busy"])

    def wait_for_custom(self, message_type: str) -> None:
        self.comm.wait_for(lambda: any(message["type"] == message_type for message in self.comm.custom))

    def join_thread(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "research-kit-chat":
                thread.join(DEADLINE_S)

    @property
    def answer(self) -> dict[str, Any]:
        return dict(self.panel.transcript[-1])


def finished(answer: str = "Hello **you**", **changes: Any) -> MessageFinished:
    return MessageFinished(
        **{"answer": answer, "usage": USAGE, "latency_s": 1.5, "trace_id": "t1", **changes}
    )


def started() -> MessageStarted:
    return MessageStarted(message_number=1, text="hi", trace_id="t1")


def words(count: int) -> list[Delta]:
    texts = [f"word{index} " for index in range(count)]
    offsets = [sum(map(len, texts[:index])) for index in range(count)]
    return [Delta(text=text, offset=offset) for text, offset in zip(texts, offsets, strict=True)]


def test_chat_panel_shows_a_finished_answer_in_its_traits() -> None:
    """When a turn has ended, the traits hold question, answer, usage, latency and links."""
    browser = Browser([started(), *words(3), finished()])
    answer = browser.send_and_wait("hi")
    question = browser.panel.transcript[0]
    assert (question["role"], question["text"], question["state"]) == ("user", "hi", "sent")
    assert answer == {
        "message_id": "a1",
        "role": "assistant",
        "state": "finished",
        "text": "Hello **you**",
        "html": "<p>Hello <strong>you</strong></p>\n",
        "error": None,
        "tools": [],
        "usage": {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.0012, "unpriced_count": 0},
        "latency_s": 1.5,
        "trace_url": "http://127.0.0.1:1/traces/t1",
        "texts": {
            "tokens": "100 in · 20 out",
            "cost": "$0.0012",
            "cost_note": "The cost of all calls is known.",
            "latency": "1.5 s",
        },
    }
    assert browser.panel.status == {
        "session_id": "jupyter-1",
        "user_id": "ada",
        "backend_state": "local",
        "session_url": "http://127.0.0.1:1/sessions/jupyter-1",
        "lm_name": "scripted/model",
        "is_busy": False,
        "message_count": 1,
        "tokens": 120,
        "cost_usd": 0.0012,
        "latency_p50_s": 1.5,
        "texts": {
            "tokens": "100 in · 20 out",
            "cost": "$0.0012",
            "cost_note": "The cost of all calls is known.",
            "latency_p50": "1.5 s",
        },
    }


def test_chat_panel_sends_the_whole_answer_to_the_browser() -> None:
    """The last state that the browser gets is the transcript that the panel holds."""
    browser = Browser([started(), *words(2), finished()])
    browser.send_and_wait("hi")
    sent = [state["transcript"] for state in browser.comm.states if "transcript" in state]
    assert sent[-1] == browser.panel.transcript


def test_chat_panel_coalesces_deltas() -> None:
    """Two thousand tokens leave as few messages whose texts, by offset, add up to the answer."""
    deltas = words(2000)
    gate = threading.Event()
    browser = Browser([started(), *deltas, gate, finished()])
    whole = "".join(delta.text for delta in deltas)
    browser.send("hi")
    browser.comm.wait_for(lambda: browser.panel.transcript[-1]["text"] == whole)
    gate.set()
    browser.wait_until_idle()
    streamed = [message for message in browser.comm.custom if message["type"] == "delta"]
    text = ""
    for message in streamed:
        assert message["offset"] == len(text)
        text += message["text"]
    assert text == whole
    assert len(streamed) < 100


def test_chat_panel_streams_a_delta_before_the_next_event() -> None:
    """A delta reaches the browser also when nothing follows it."""
    gate = threading.Event()
    browser = Browser([started(), Delta(text="Hel", offset=0), gate, finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    assert browser.comm.custom[-1] == {"type": "delta", "message_id": "a1", "offset": 0, "text": "Hel"}
    gate.set()
    browser.wait_until_idle()


def test_chat_panel_holds_the_text_so_far_while_it_streams() -> None:
    """A page that is loaded in the middle of an answer finds what has arrived in the trait."""
    gate = threading.Event()
    browser = Browser([started(), Delta(text="Hel", offset=0), gate, finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    assert browser.panel.get_state("transcript")["transcript"][-1]["text"] == "Hel"
    gate.set()
    browser.wait_until_idle()


@pytest.mark.parametrize("message_type", ["hello", "resync"])
def test_chat_panel_resends_the_transcript_while_it_streams(message_type: str) -> None:
    """A view that opens or misses a delta gets the whole transcript again."""
    gate = threading.Event()
    browser = Browser([started(), Delta(text="Hel", offset=0), gate, finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    browser.panel.receive({"type": message_type})
    transcripts = [state["transcript"] for state in browser.comm.states if "transcript" in state]
    assert transcripts[-1][-1]["text"] == "Hel"
    gate.set()
    browser.wait_until_idle()


def test_chat_panel_replaces_text_from_the_offset_of_a_delta() -> None:
    """A delta whose offset is not the end replaces what was there."""
    gate = threading.Event()
    browser = Browser(
        [started(), Delta(text="first try", offset=0), Delta(text="second", offset=0), gate, finished()]
    )
    browser.send("hi")
    browser.comm.wait_for(lambda: browser.answer["text"] == "second")
    gate.set()
    browser.wait_until_idle()


def test_chat_panel_answers_hello() -> None:
    """The reply tells ipykernel on which subshell this browser is served."""
    browser = Browser()
    browser.panel.receive({"type": "hello"})
    assert browser.comm.custom == [{"type": "ready"}]


def test_chat_panel_shows_tools_as_they_run() -> None:
    """A tool call is shown when it starts and when it ends, and stays with the answer."""
    gate = threading.Event()
    call = ToolStarted(call_id="c1", name="describe", arguments={"name": "df"})
    result = ToolFinished(call_id="c1", name="describe", result="344 rows", is_error=False, latency_s=0.25)
    browser = Browser([started(), call, gate, result, finished()])
    browser.send("hi")
    browser.wait_for_custom("tool")
    assert browser.comm.custom[-1]["tool"]["result"] is None
    gate.set()
    browser.wait_until_idle()
    assert browser.answer["tools"] == [
        {
            "call_id": "c1",
            "name": "describe",
            "arguments": '{\n  "name": "df"\n}',
            "result": "344 rows",
            "is_error": False,
            "latency_s": 0.25,
            "texts": {"latency": "0.25 s"},
        }
    ]


def test_chat_panel_stops_an_answer() -> None:
    """Stop ends the turn; what had arrived stays and is marked."""
    browser = Browser([started(), Delta(text="a long ans", offset=0), threading.Event(), finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    browser.panel.receive({"type": "stop"})
    browser.wait_until_idle()
    assert (browser.answer["state"], browser.answer["text"]) == ("cancelled", "a long ans")


def test_chat_panel_ignores_stop_when_nothing_runs() -> None:
    """A click on Stop that comes too late changes nothing."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    browser.panel.receive({"type": "stop"})
    assert browser.answer["state"] == "finished"


def test_chat_panel_refuses_a_second_message_while_busy() -> None:
    """A message sent during an answer is refused with a reason, and not sent later."""
    gate = threading.Event()
    browser = Browser([started(), gate, finished()])
    browser.send("hi", "r1")
    browser.send("again", "r2")
    gate.set()
    browser.wait_until_idle()
    [refusal] = [message for message in browser.comm.custom if message["type"] == "refused"]
    assert refusal["request_id"] == "r2"
    assert "still being answered" in refusal["reason"]
    assert browser.engine.sent == ["hi"]


def test_chat_panel_shows_why_the_engine_refuses() -> None:
    """What the engine says about a message it cannot take reaches the browser."""
    browser = Browser()
    browser.send("  ", "r1")
    assert browser.comm.custom == [
        {
            "type": "refused",
            "request_id": "r1",
            "reason": "The message is empty. Write what you want to know.",
        }
    ]
    assert browser.panel.transcript == []


def test_chat_panel_shows_a_failed_turn() -> None:
    """A turn that fails leaves its error in the transcript, and the next message is taken."""
    failure = MessageFailed(error="No key. Set OPENAI_API_KEY.", usage=Usage(), latency_s=0.1, trace_id=None)
    browser = Browser([started(), failure], [started(), finished()])
    answer = browser.send_and_wait("hi")
    assert (answer["state"], answer["error"]) == ("failed", "No key. Set OPENAI_API_KEY.")
    assert answer["texts"]["cost"] == UNKNOWN
    assert browser.send_and_wait("again")["state"] == "finished"


def test_chat_panel_survives_an_engine_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside the engine ends the turn as failed, and is reported as an error of its thread."""
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    browser = Browser([started(), Delta(text="Hel", offset=0), RuntimeError("boom")], [started(), finished()])
    answer = browser.send_and_wait("hi")
    assert (answer["state"], answer["text"]) == ("failed", "Hel")
    assert "Send the message again" in answer["error"]
    assert [str(error.exc_value) for error in errors] == ["boom"]
    assert browser.send_and_wait("again")["state"] == "finished"


def test_chat_panel_never_sends_unsanitised_html() -> None:
    """Markup in a model's answer is text in the browser, in the panel and in the saved notebook."""
    browser = Browser([started(), finished("<img src=x onerror=alert(1)>")])
    browser.send_and_wait("<img src=x onerror=alert(2)>")
    assert "<img" not in browser.answer["html"]
    bundle = browser.panel._repr_mimebundle_()
    assert bundle is not None
    assert "<img" not in bundle[0]["text/html"]


def test_chat_panel_can_carry_any_text() -> None:
    """Half characters and arguments that are not JSON do not keep an answer from the browser."""
    call = ToolStarted(call_id="c1", name="t", arguments={"value": {1, 2}})
    browser = Browser([started(), call, Delta(text="a\ud800", offset=0), finished("b\udfff")])
    assert browser.send_and_wait("hi \ud83d")["text"] == "b?"
    assert browser.engine.sent == ["hi ?"]


def test_chat_panel_close_stops_the_turn() -> None:
    """Closing the panel ends the answer and releases its comm."""
    browser = Browser([started(), Delta(text="Hel", offset=0), threading.Event(), finished()])
    browser.send("hi")
    browser.wait_for_custom("delta")
    closed = threading.Event()
    browser.panel.observe(lambda change: closed.set(), "transcript")
    browser.panel.close()
    assert closed.wait(DEADLINE_S)
    assert browser.answer["state"] == "cancelled"
    assert browser.panel.comm is None


def test_chat_panel_takes_no_unknown_arguments() -> None:
    """A misspelt argument is an error, not a silently ignored one."""
    with pytest.raises(TypeError, match="titel"):
        ChatPanel(ScriptedEngine(), titel="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("content", [{"type": "launch"}, {"type": "send", "text": "hi"}, "hello", None])
def test_chat_panel_names_a_message_it_does_not_know(content: Any) -> None:
    """A message of another release is an error that says so."""
    with pytest.raises(ResearchKitError, match="reload it"):
        Browser().panel.receive(content)


def test_chat_panel_bundle_has_the_transcript_beside_the_view() -> None:
    """Viewers without widgets find the transcript in the same bundle as the view."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("what is up")
    bundle = browser.panel._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == browser.panel.model_id
    assert "what is up" in data["text/html"]
    assert "Hello <strong>you</strong>" in data["text/html"]


def test_chat_panel_updates_the_saved_transcript(shell: InteractiveShell) -> None:
    """The output that saved notebooks keep is updated when a turn ends, the one with the view is not."""
    browser = Browser([started(), finished()])
    with capture_output(stdout=False, stderr=False) as captured:
        shell.display_formatter.format(browser.panel)  # type: ignore[union-attr]
        browser.send_and_wait("what is up")
        browser.join_thread()
    view, at_first, at_the_end = captured.outputs
    assert "text/html" not in view.data
    assert "No messages yet" in at_first.data["text/html"]
    assert "what is up" in at_the_end.data["text/html"]
    assert at_the_end.update
    assert at_the_end.transient == at_first.transient


def test_chat_panel_accepts_every_message_of_the_protocol() -> None:
    """Each message that the front end may send is understood."""
    browser = Browser([started(), finished()])
    for message in PROTOCOL["to_kernel"].values():
        browser.panel.receive(message)
    browser.wait_until_idle()
    assert browser.engine.sent == [PROTOCOL["to_kernel"]["send"]["text"]]


def test_chat_panel_sends_only_messages_of_the_protocol() -> None:
    """Each message to the browser has exactly the fields of its example, and every example occurs."""
    gate = threading.Event()
    call = ToolStarted(call_id="c1", name="describe", arguments={})
    browser = Browser([started(), call, Delta(text="Hel", offset=0), gate, finished()])
    browser.panel.receive({"type": "hello"})
    browser.send("hi")
    browser.send("again")
    browser.wait_for_custom("delta")
    gate.set()
    browser.wait_until_idle()
    shapes = {message["type"]: shape_of(message) for message in browser.comm.custom}
    assert shapes == {name: shape_of(message) for name, message in PROTOCOL["to_browser"].items()}
    assert shape_of(browser.panel.status) == shape_of(PROTOCOL["traits"]["status"])
    assert shape_of(browser.answer) == shape_of(PROTOCOL["traits"]["transcript"][1])


def shape_of(value: Any) -> Any:
    """Return the names of a JSON object, its objects' included."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    return None


def test_find_asset_prefers_the_first_folder(tmp_path: Path) -> None:
    """The installed file wins over the one of a checkout."""
    for name in ("static", "widgets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.js").write_text(name)
    folders = (tmp_path / "static", tmp_path / "widgets")
    assert find_asset("index.js", folders=folders).read_text() == "static"
    (tmp_path / "static" / "index.js").unlink()
    assert find_asset("index.js", folders=folders).read_text() == "widgets"


def test_find_asset_names_both_folders(tmp_path: Path) -> None:
    """An installation without its front end says where it looked."""
    with pytest.raises(ResearchKitError, match=r"static nor in .*widgets.*Reinstall"):
        find_asset("index.js", folders=(tmp_path / "static", tmp_path / "widgets"))


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()

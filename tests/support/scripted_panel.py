"""A panel without a browser: an engine whose turns follow a script, and the other end of the comm.

Owns nothing that the panel does. Invariant: the engine refuses a message that its script does not have, and
counts as the real one would.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comm.base_comm import BaseComm

from research_kit.chat.approving import Approvals
from research_kit.chat.events import (
    Delta,
    Event,
    MessageCancelled,
    MessageFailed,
    MessageFinished,
    MessageStarted,
    Usage,
)
from research_kit.chat.history import Totals
from research_kit.chat.panel import ChatPanel
from research_kit.chat.past import PastMessage, SessionSummary
from research_kit.chat.spending import Budget
from research_kit.chat.tool_trust import ToolTrust
from research_kit.errors import ConfigError, ResearchKitError

DEADLINE_S = 20.0
PROTOCOL = json.loads((Path(__file__).parents[2] / "widgets/chat_panel/protocol.json").read_text())
USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.0012)

Step = Event | threading.Event | Exception


class ScriptedTurn:
    """Gives the events of its script; waits at each `threading.Event` until it is set."""

    def __init__(self, steps: Sequence[Step], engine: ScriptedEngine, message_number: int) -> None:
        self.message_number = message_number
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
    backend_reason = ""
    is_project_known = True
    lm_name = "scripted/model"

    def __init__(self, *turns: Sequence[Step]) -> None:
        self._turns = list(turns)
        self.totals = Totals()
        self.sent: list[str] = []
        self.calls: list[tuple[Any, ...]] = []
        self.approvals = Approvals()
        self.trust = ToolTrust()
        self.budget = Budget(session_id="jupyter-1", used=Usage())
        self.past: list[PastMessage] = []
        self.listeners: list[Callable[[], None]] = []
        self.refusal: ResearchKitError | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def send(self, text: str) -> ScriptedTurn:
        if not text.strip():
            raise ConfigError("The message is empty. Write what you want to know.")
        assert self._turns, f"the script is over, but {text!r} was sent"
        self.sent.append(text)
        self.totals = Totals(message_count=len(self.sent), usage=self.totals.usage)
        return ScriptedTurn(self._turns.pop(0), self, len(self.sent))

    def resend(self, message_number: int, text: str) -> ScriptedTurn:
        self.calls.append(("resend", message_number, text))
        return self.send(text)

    def decide(self, call_id: str, decision: str) -> None:
        self.calls.append(("decide", call_id, decision))

    def list_sessions(self) -> list[SessionSummary]:
        start = datetime(2026, 11, 23, 9, tzinfo=UTC)
        return [
            SessionSummary(
                session_id="jupyter-0", title="What was it?", start_time=start, message_count=3, usage=USAGE
            )
        ]

    def open_session(self, session_id: str | None) -> list[PastMessage]:
        self.calls.append(("open_session", session_id))
        if self.refusal is not None:
            raise self.refusal
        return self.past

    def give_feedback(self, trace_id: str, value: int | None, comment: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(("feedback", trace_id, value, comment))
        self.meanwhile()

    def page_address(self, trace_id: str | None = None) -> str | None:
        if not self.is_project_known:
            return None
        return (
            f"http://127.0.0.1:1/traces/{trace_id}" if trace_id else "http://127.0.0.1:1/sessions/jupyter-1"
        )

    def opening_link(self, trace_id: str | None = None) -> str | None:
        return f"{self.page_address(trace_id)}?token=proof"

    def count(self, event: MessageFinished | MessageFailed | MessageCancelled) -> None:
        self.totals = Totals(message_count=len(self.sent), usage=event.usage, latency_p50_s=event.latency_s)


class RecordingComm(BaseComm):
    """The kernel's end of a comm; keeps what was published."""

    def __init__(self) -> None:
        self._published: list[dict[str, Any]] = []
        self._arrival = threading.Condition()
        self.byte_count = 0
        super().__init__(target_name="jupyter.widget")

    def publish_msg(self, msg_type: str, data: Any = None, **_keys: Any) -> None:
        with self._arrival:
            # What the browser gets is a copy made now, not the object that the panel goes on changing.
            text = json.dumps({"msg_type": msg_type, **(data or {})})
            self.byte_count += len(text)
            self._published.append(json.loads(text))
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

    def wait_for_answer(self, text: str) -> None:
        self.comm.wait_for(lambda: bool(self.panel.messages) and self.answer["text"] == text)

    @property
    def transcripts(self) -> list[dict[str, Any]]:
        return [state["transcript"] for state in self.comm.states if "transcript" in state]

    def join_thread(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "research-kit-chat":
                thread.join(DEADLINE_S)

    @property
    def answer(self) -> dict[str, Any]:
        return dict(self.panel.messages[-1])


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


def shape_of(value: Any) -> Any:
    """Return the names of a JSON object, its objects' included."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    return None

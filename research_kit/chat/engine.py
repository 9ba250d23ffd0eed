"""The conversation: messages in, typed events out, one trace per message.

Owns the order of messages, the history and the sums; knows no widgets. Invariant: one message is answered at
a time, on the agent's loop thread, in a trace of its own, so that nothing of a running cell leaks into it.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from research_kit import session
from research_kit.chat.events import MessageFinished, Usage, add_usage
from research_kit.chat.turn import ClosingEvent, Turn
from research_kit.errors import ConfigError, ResearchKitError

if TYPE_CHECKING:
    import dspy

    from research_kit.chat.assembly import Assembly

__all__ = ["Conversation", "Totals", "Turn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums of a conversation.

    Attributes:
        message_count: Messages sent, whatever became of them.
        usage: Tokens and cost of all of them.
        latency_p50_s: Median time to the whole answer in seconds; None before the first answer.
    """

    message_count: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_p50_s: float | None = None


class Conversation:
    """A conversation with an assistant that can look at the notebook's variables.

    Args:
        lm: A ``dspy.BaseLM`` or a model name; by default what `research_kit.resolve_lm` chooses.
        tools: Python functions or ``dspy.Tool`` objects that the assistant may call besides the notebook's.
        assistant: Any DSPy module that takes ``question`` and ``history`` and returns ``answer``; it then
            brings its own tools.
        get_namespace: Returns the variables that the assistant sees; by default the notebook's.
    """

    def __init__(
        self,
        *,
        lm: Any = None,
        tools: Sequence[Callable[..., Any]] = (),
        assistant: dspy.Module | None = None,
        get_namespace: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._parts = {"lm": lm, "tools": tools, "assistant": assistant, "get_namespace": get_namespace}
        self._lock = threading.Lock()
        self._assembly: Assembly | None = None
        self._assembling = asyncio.Lock()
        self._turn: Turn | None = None
        self._work: asyncio.Future[str] | None = None
        self._history: list[dict[str, str]] = []
        self._latencies_s: list[float] = []
        self._message_count = 0
        self._usage = Usage()

    @property
    def session_id(self) -> str | None:
        """The session that the messages belong to."""
        return session.current_session_id()

    @property
    def user_id(self) -> str | None:
        """The user that the messages belong to."""
        return session.current_user_id()

    @property
    def backend_state(self) -> str:
        """Where traces go: ``disabled``, ``local``, ``connected``, ``buffering`` or ``rejected``."""
        return session.status().state

    @property
    def session_url(self) -> str | None:
        """The page that replays the session; None until it is known."""
        return session.status().session_url

    @property
    def lm_name(self) -> str | None:
        """The language model that answers; None before the first message."""
        return self._assembly.lm.name if self._assembly is not None else None

    @property
    def totals(self) -> Totals:
        """The sums so far."""
        with self._lock:
            latency = statistics.median(self._latencies_s) if self._latencies_s else None
            return Totals(message_count=self._message_count, usage=self._usage, latency_p50_s=latency)

    def trace_url(self, trace_id: str) -> str | None:
        """Return the page of a trace; None while the server's project is not known."""
        backend = session.kernel_session().backend
        return backend.trace_url(trace_id) if backend is not None else None

    def prepare(self) -> None:
        """Begin to connect the tools and load the model now, so that the first message need not wait for it.

        Returns at once. What fails is told by the first message, which tries again.
        """
        from research_kit.agent import agent_loop

        agent_loop().submit(self._ready_assembly())

    def send(self, text: str) -> Turn:
        """Begin to answer ``text`` and return at once.

        Raises:
            ConfigError: When ``text`` is empty.
            ResearchKitError: When the message before it is still being answered.
        """
        if not text.strip():
            raise ConfigError(f"The message {text!r} is empty. Write what you want to know.")
        from research_kit.agent import agent_loop

        with self._lock:
            if self._turn is not None and self._turn.is_running:
                raise ResearchKitError(
                    f"The message {self._turn.text[:60]!r} is still being answered. "
                    "Wait for it, or stop it first."
                )
            self._message_count += 1
            turn = Turn(text, cancel=self._request_stop)
            self._turn = turn
            agent_loop().submit(self._answer(turn, self._message_count))
        return turn

    def ask(self, text: str) -> str:
        """Send ``text``, wait, and return the answer.

        Raises:
            ResearchKitError: When the message could not be answered.
        """
        return self.send(text).result().answer

    async def _answer(self, turn: Turn, message_number: int) -> None:
        from research_kit.chat.answering import MessageRun

        run = MessageRun(turn, message_number, self._history)
        # A task of its own: stopping it leaves this one alive to tell how the message ended.
        self._work = asyncio.ensure_future(run.work(self._ready_assembly))
        [outcome] = await asyncio.gather(self._work, return_exceptions=True)
        closing = run.close(outcome)
        self._remember(turn.text, closing)
        turn.emit(closing)

    def _request_stop(self) -> None:
        from research_kit.agent import agent_loop

        agent_loop().submit(self._stop())

    async def _stop(self) -> None:
        # Runs after the first step of `_answer`: the loop keeps the order in which work was submitted.
        if self._work is not None:
            self._work.cancel()

    def _remember(self, text: str, closing: ClosingEvent) -> None:
        with self._lock:
            self._usage = add_usage(self._usage, closing.usage)
            if isinstance(closing, MessageFinished):
                self._latencies_s.append(closing.latency_s)
                self._history.append({"question": text, "answer": closing.answer})

    async def _ready_assembly(self) -> Assembly:
        async with self._assembling:
            if self._assembly is None:
                from research_kit.chat.assembly import assemble, main_namespace

                parts = {**self._parts, "get_namespace": self._parts["get_namespace"] or main_namespace}
                # It may take seconds, and the loop serves the tools meanwhile.
                self._assembly = await asyncio.to_thread(assemble, **parts)
            return self._assembly

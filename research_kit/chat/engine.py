"""The conversation: messages in, typed events out, one trace per message.

Owns the order of messages, the history and the sums; knows no widgets. Invariant: one message is answered at
a time, in the order in which they were sent, on the agent's loop thread, in a trace of its own, so that
nothing of a running cell leaks into it.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from research_kit import session
from research_kit.chat.approving import Approvals
from research_kit.chat.events import MessageFinished, Usage, add_usage
from research_kit.chat.history import Exchange, Totals, messages_within
from research_kit.chat.pages import opening_link, page_address
from research_kit.chat.spending import Budget, spending
from research_kit.chat.tool_trust import ToolTrust
from research_kit.chat.turn import ClosingEvent, Turn
from research_kit.errors import ConfigError, ResearchKitError

if TYPE_CHECKING:
    import dspy

    from research_kit.chat.assembly import Assembly
    from research_kit.chat.past import PastMessage, SessionSummary

__all__ = ["Conversation", "Turn"]

_MOST_WAITING = 8


class Conversation:
    """A conversation with an assistant that can look at the notebook's variables.

    Args:
        lm: A ``dspy.BaseLM`` or a model name; by default what `research_kit.resolve_lm` chooses.
        tools: Python functions, ``dspy.Tool`` objects or tool servers (`research_kit.papers`) that the
            assistant may use besides the notebook's own tools and the servers of ``mcp.json``.
        assistant: Any DSPy module that takes ``question`` and ``history`` and returns ``answer``; it then
            brings its own tools.
        get_namespace: Returns the variables that the assistant sees; by default the notebook's.
        approve: Asked with a tool's name and arguments before a tool runs that may change something and no
            panel can ask; without it the answer is no.
        max_history_tokens: How many tokens of earlier messages a question carries; the oldest are left out.
    """

    def __init__(
        self,
        *,
        lm: Any = None,
        tools: Sequence[Any] = (),
        assistant: dspy.Module | None = None,
        get_namespace: Callable[[], Mapping[str, Any]] | None = None,
        approve: Callable[[str, dict[str, Any]], bool] | None = None,
        max_history_tokens: int = 16_000,
    ) -> None:
        self.approvals = Approvals(approve)
        # An assistant that is given brings its own tools.
        self.trust = ToolTrust() if assistant is None else ToolTrust(None)
        self._parts = {"lm": lm, "tools": tools, "assistant": assistant, "get_namespace": get_namespace}
        self._max_history_tokens = max_history_tokens
        self._lock = threading.Lock()
        self._assembly: Assembly | None = None
        self._assembled_state = ""
        self._told: Assembly | None = None
        self._assembling = asyncio.Lock()
        self._answering = asyncio.Lock()
        self._turns: list[Turn] = []
        self._exchanges: list[Exchange] = []
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
    def backend_reason(self) -> str:
        """Why the backend is in its state; empty when all is well."""
        return session.status().reason

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, from any thread, when the backend's state has changed; return what ends this."""
        return session.kernel_session().listen(listener)

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

    @property
    def budget(self) -> Budget:
        """What the session has used and may use."""
        return spending().of(session.current_session_id())

    @property
    def waiting_count(self) -> int:
        """Messages that wait until those before them are answered."""
        with self._lock:
            return max(len(self._turns) - 1, 0)

    def prepare(self) -> None:
        """Begin to connect the tools and load the model now, so that the first message need not wait for it.

        Returns at once. What fails is told by the first message, which tries again.
        """
        from research_kit.agent import agent_loop

        agent_loop().submit(self._ready_assembly())

    def send(self, text: str) -> Turn:
        """Begin to answer ``text`` and return at once; while another message is answered, it waits its turn.

        Raises:
            ConfigError: When ``text`` is empty.
            ResearchKitError: When the session's budget is used, or too many messages wait.
        """
        return self._begin(text)

    def resend(self, message_number: int, text: str) -> Turn:
        """Ask again from a message on: it and what came after it leave the history, and ``text`` is answered.

        With the same text it is a new attempt, which DSPy's cache does not answer.

        Raises:
            ConfigError: When ``text`` is empty.
            ResearchKitError: When a message is still being answered, or the session's budget is used.
        """
        return self._begin(text, again_from=message_number)

    def ask(self, text: str) -> str:
        """Send ``text``, wait, and return the answer.

        Raises:
            ResearchKitError: When the message could not be answered.
        """
        return self.send(text).result().answer

    def decide(self, call_id: str, decision: str) -> None:
        """Answer an `ApprovalNeeded`: ``once``, ``session`` or ``deny``.

        Raises:
            ConfigError: When the decision is another word.
        """
        self.approvals.decide(call_id, decision)

    def begin_anew(self) -> None:
        """Forget the messages; the session stays.

        Raises:
            ResearchKitError: When a message is still being answered.
        """
        with self._lock:
            if self._turns:
                raise ResearchKitError("A message is still being answered. Wait for it, or stop it first.")
            self._forget()

    def restore(self) -> list[PastMessage]:
        """Go on with the messages that this session has on the server, and return them.

        Raises:
            BackendError: When the server cannot be read.
        """
        from research_kit.chat.past import read_past

        session_id = session.current_session_id()
        if session_id is None:
            return []
        past = read_past(session_id)
        spending().recall(session_id, past.usage)
        with self._lock:
            self._exchanges = [
                Exchange(message_number=old.message_number, question=old.question, answer=old.answer)
                for old in past.messages
                if old.answer and not old.error
            ]
            self._latencies_s = [old.latency_s for old in past.messages if old.answer]
            self._message_count = max((old.message_number for old in past.messages), default=0)
            self._usage = Usage()
            for old in past.messages:
                self._usage = add_usage(self._usage, old.usage)
        return past.messages

    def list_sessions(self) -> list[SessionSummary]:
        """Return the sessions that one can go on with, newest first.

        Raises:
            BackendError: When the server cannot be read.
        """
        from research_kit.chat.past import list_sessions

        return list_sessions()

    def open_session(self, session_id: str | None) -> list[PastMessage]:
        """Go on with a session in this kernel, or with a new one, and return its messages.

        Raises:
            ResearchKitError: When a message is still being answered, or the session cannot be read.
        """
        self.begin_anew()
        if session_id is None:
            session.new_session()
            return []
        session.resume(session_id)
        return self.restore()

    def give_feedback(self, trace_id: str, value: int | None, comment: str) -> None:
        """Score an answer ``helpful``: 1 or 0, with a comment; None takes the score back.

        Raises:
            ResearchKitError: When it cannot be taken back.
        """
        from research_kit.chat.feedback import give_feedback

        give_feedback(trace_id, value, comment)

    def page_address(self, trace_id: str | None = None) -> str | None:
        """Return the address of the page of a trace, else of the session, without any secret."""
        return page_address(trace_id=trace_id)

    def opening_link(self, trace_id: str | None = None) -> str | None:
        """Return the link that opens that page now, for once; it is never to be kept.

        Raises:
            ResearchKitError: When the embedded store cannot be started.
        """
        return opening_link(trace_id=trace_id)

    def _forget(self) -> None:
        self._exchanges = []
        self._latencies_s = []
        self._message_count = 0
        self._usage = Usage()

    def _begin(self, text: str, *, again_from: int | None = None) -> Turn:
        if not text.strip():
            raise ConfigError(f"The message {text!r} is empty. Write what you want to know.")
        from research_kit.agent import agent_loop

        if self.budget.is_spent:
            raise ResearchKitError(self.budget.refusal())
        with self._lock:
            if again_from is not None:
                # Before the loop takes the message up, which reads the history.
                self._cut_history(again_from)
            if len(self._turns) > _MOST_WAITING:
                raise ResearchKitError(
                    f"{_MOST_WAITING} messages wait already. Send {text[:60]!r} when some are answered."
                )
            self._message_count += 1
            turn = Turn(
                text,
                message_number=self._message_count,
                is_retry=again_from is not None,
                cancel=self._stop,
            )
            self._turns.append(turn)
            agent_loop().submit(self._answer(turn))
        return turn

    def _cut_history(self, message_number: int) -> None:
        if self._turns:
            raise ResearchKitError(
                f"The message {self._turns[0].text[:60]!r} is still being answered. "
                "Wait for it, or stop it, before you change an earlier one."
            )
        self._exchanges = [known for known in self._exchanges if known.message_number < message_number]

    async def _answer(self, turn: Turn) -> None:
        from research_kit.chat.answering import MessageRun

        run = MessageRun(turn)
        waited: Any = await _settled(turn, self._answering.acquire())
        if waited is not True:  # stopped while it waited
            self._end(turn, run.close(waited))
            return
        try:
            with self._lock:
                history = messages_within(self._exchanges, self._max_history_tokens)
            closing = run.close(await _settled(turn, run.work(self._assembly_for_message, history)))
            # Before the next message comes up, which is to know this one.
            self._end(turn, closing)
        finally:
            self._answering.release()

    def _end(self, turn: Turn, closing: ClosingEvent) -> None:
        self._remember(turn, closing)
        self.approvals.release(turn)
        turn.emit(closing)

    def _stop(self, turn: Turn) -> None:
        from research_kit.agent import agent_loop

        agent_loop().submit(_cancel(turn))

    def _remember(self, turn: Turn, closing: ClosingEvent) -> None:
        with self._lock:
            self._turns.remove(turn)
            self._usage = add_usage(self._usage, closing.usage)
            if closing.trace_id is None:
                spending().add(session.current_session_id(), closing.usage)
            if isinstance(closing, MessageFinished):
                self._latencies_s.append(closing.latency_s)
                self._exchanges.append(
                    Exchange(message_number=turn.message_number, question=turn.text, answer=closing.answer)
                )

    async def _assembly_for_message(self) -> Assembly:
        """Return the assembly, with what is wrong with it when nobody has been told yet."""
        assembly = await self._ready_assembly()
        if assembly is self._told:
            return replace(assembly, problems=())
        self._told = assembly
        return assembly

    async def _ready_assembly(self) -> Assembly:
        async with self._assembling:
            state = await asyncio.to_thread(self.trust.read_state)
            if self._assembly is None or state != self._assembled_state:
                from research_kit.chat.assembly import assemble, main_namespace
                from research_kit.chat.progress import report_progress

                parts = {**self._parts, "get_namespace": self._parts["get_namespace"] or main_namespace}
                if self._assembly is not None:
                    parts["lm"] = self._assembly.lm
                # It may take seconds, and the loop serves the tools meanwhile.
                self._assembly = await asyncio.to_thread(
                    assemble, **parts, approve=self.approvals.ask, on_progress=report_progress
                )
                self._assembled_state = state
            return self._assembly


async def _settled(turn: Turn, work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of ``work`` or what it raised; stopping the turn cancels it, and not its caller."""
    turn.work = asyncio.ensure_future(work)
    if turn.is_cancelled:
        turn.work.cancel()
    outcomes = await asyncio.gather(turn.work, return_exceptions=True)
    return outcomes[0]


async def _cancel(turn: Turn) -> None:
    # Runs after the first step of `_answer`: the loop keeps the order in which work was submitted.
    if turn.work is not None:
        turn.work.cancel()

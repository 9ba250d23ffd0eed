"""One message from question to closing event.

Owns what exists only while a message is answered: its trace, its progress, its stream. Invariant: whatever
the program raises becomes a closing event, and the trace is closed with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import dspy
from opentelemetry import context as otel_context

from research_kit import session
from research_kit.agent import agent_loop
from research_kit.chat.assembly import Assembly
from research_kit.chat.events import MessageCancelled, MessageFailed, MessageFinished, MessageStarted, Notice
from research_kit.chat.message_trace import MessageTrace
from research_kit.chat.progress import AnswerStream, ProgressCallback, answer_listeners
from research_kit.chat.spending import Budget, spending, start_counting
from research_kit.chat.turn import ClosingEvent, Turn, current_turn
from research_kit.errors import ResearchKitError

__all__ = ["MessageRun"]


class MessageRun:
    """The work on one message; lives on the agent's loop thread.

    Args:
        turn: Takes the events.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._started_s = time.perf_counter()
        self._overspent: Budget | None = None
        self._trace: MessageTrace | None = None
        self._assembly: Assembly | None = None
        self._stream: AnswerStream | None = None
        self.progress = ProgressCallback(turn.emit, before_lm=self._check_budget)

    async def work(
        self, get_assembly: Callable[[], Awaitable[Assembly]], history: Sequence[dict[str, str]]
    ) -> str:
        """Answer the message in the light of ``history``; raises what the program raises."""
        self._started_s = time.perf_counter()
        await asyncio.to_thread(start_counting)
        self._trace = MessageTrace.start(self._turn.text, self._turn.message_number)
        # This task's own context, so there is nothing to detach.
        otel_context.attach(self._trace.context)
        self._turn.emit(
            MessageStarted(
                message_number=self._turn.message_number,
                text=self._turn.text,
                trace_id=self._trace.trace_id,
            )
        )
        self._assembly = await get_assembly()
        self._trace.describe(self._turn, self._assembly)
        for problem in self._assembly.problems:
            self._turn.emit(Notice(text=problem))
        current_turn.set(self._turn)
        answer = await self._call(self._assembly, history)
        self._warn_of_budget()
        return answer if isinstance(answer, str) else str(answer)

    def close(self, outcome: str | BaseException) -> ClosingEvent:
        """Close the trace, and return how the message ended."""
        event = self._closing_event(outcome)
        if self._trace is not None:
            self._trace.end(event)
        return event

    async def _call(self, assembly: Assembly, history: Sequence[dict[str, str]]) -> object:
        program = (
            assembly.fresh_program(self._turn.message_number) if self._turn.is_retry else assembly.program
        )
        listeners = answer_listeners(program)
        self._stream = AnswerStream(self._turn.emit, listeners)
        with dspy.context(
            lm=assembly.lm.lm,
            callbacks=[*dspy.settings.callbacks, self.progress],
            send_stream=self._stream,
            stream_listeners=list(listeners.values()),
        ):
            prediction = await program.acall(
                question=self._turn.text, history=dspy.History(messages=list(history))
            )
        self._stream.finish()
        if "answer" not in prediction:
            raise ResearchKitError(
                f"The assistant {type(program).__name__} returned {sorted(prediction.keys())}, "
                "but no 'answer'. Give its signature an output field of that name."
            )
        return prediction.answer

    def _check_budget(self) -> None:
        """Stop the message when the budget was used up by the calls before; the next is then not made."""
        state, work = spending().of(session.current_session_id()), self._turn.work
        if not state.is_spent or work is None:
            return
        self._overspent = state
        if agent_loop().is_current_thread():
            # From inside the task itself, so that the call ends where it would first wait for the network.
            work.cancel()
        else:
            work.get_loop().call_soon_threadsafe(work.cancel)

    def _warn_of_budget(self) -> None:
        state = spending().of(session.current_session_id())
        if state.is_warning:
            self._turn.emit(Notice(text=f"Most of this session's budget is used: {state}."))

    def _closing_event(self, outcome: str | BaseException) -> ClosingEvent:
        usage, latency_s = self.progress.usage, time.perf_counter() - self._started_s
        trace_id = self._trace.trace_id if self._trace is not None else None
        if isinstance(outcome, str):
            return MessageFinished(answer=outcome, usage=usage, latency_s=latency_s, trace_id=trace_id)
        if self._overspent is not None:
            return MessageFailed(
                error=self._overspent.refusal(), usage=usage, latency_s=latency_s, trace_id=trace_id
            )
        if isinstance(outcome, asyncio.CancelledError):
            arrived = self._stream.text if self._stream is not None else ""
            return MessageCancelled(answer=arrived, usage=usage, latency_s=latency_s, trace_id=trace_id)
        return MessageFailed(
            error=_explain(outcome, self._assembly), usage=usage, latency_s=latency_s, trace_id=trace_id
        )


def _explain(error: BaseException, assembly: Assembly | None) -> str:
    if isinstance(error, ResearchKitError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if assembly is None:
        return f"The assistant could not be prepared. {text}"
    return (
        f"The assistant failed while it used the language model {assembly.lm.name!r}. {text} "
        "Send the message again, or choose another model with RESEARCH_KIT_LM or Conversation(lm=...)."
    )

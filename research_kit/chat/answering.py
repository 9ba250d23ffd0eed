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
from research_kit.chat.assembly import Assembly
from research_kit.chat.events import MessageCancelled, MessageFailed, MessageFinished, MessageStarted
from research_kit.chat.message_trace import MessageTrace
from research_kit.chat.progress import AnswerStream, ProgressCallback, answer_listeners
from research_kit.chat.turn import ClosingEvent, Turn
from research_kit.errors import ResearchKitError

__all__ = ["MessageRun"]


class MessageRun:
    """The work on one message; lives on the agent's loop thread.

    Args:
        turn: Takes the events.
        message_number: Number of the message in its conversation, from 1.
        history: The finished messages before it, as ``question`` and ``answer``.
    """

    def __init__(self, turn: Turn, message_number: int, history: Sequence[dict[str, str]]) -> None:
        self._turn = turn
        self._message_number = message_number
        self._history = history
        self._started_s = time.perf_counter()
        self._trace: MessageTrace | None = None
        self._assembly: Assembly | None = None
        self._stream: AnswerStream | None = None
        self.progress = ProgressCallback(turn.emit)

    async def work(self, get_assembly: Callable[[], Awaitable[Assembly]]) -> str:
        """Answer the message; raises what the program raises."""
        await asyncio.to_thread(session.activate)
        self._trace = MessageTrace.start(self._turn.text, self._message_number)
        # This task's own context, so there is nothing to detach.
        otel_context.attach(self._trace.context)
        self._turn.emit(
            MessageStarted(
                message_number=self._message_number, text=self._turn.text, trace_id=self._trace.trace_id
            )
        )
        self._assembly = await get_assembly()
        answer = await self._call(self._assembly)
        return answer if isinstance(answer, str) else str(answer)

    def close(self, outcome: str | BaseException) -> ClosingEvent:
        """Close the trace, and return how the message ended."""
        event = self._closing_event(outcome)
        if self._trace is not None:
            self._trace.end(event, lm_name=self._assembly.lm.name if self._assembly is not None else None)
        return event

    async def _call(self, assembly: Assembly) -> object:
        listeners = answer_listeners(assembly.program)
        self._stream = AnswerStream(self._turn.emit, listeners)
        with dspy.context(
            lm=assembly.lm.lm,
            callbacks=[*dspy.settings.callbacks, self.progress],
            send_stream=self._stream,
            stream_listeners=list(listeners.values()),
        ):
            history = dspy.History(messages=list(self._history))
            prediction = await assembly.program.acall(question=self._turn.text, history=history)
        self._stream.finish()
        if "answer" not in prediction:
            raise ResearchKitError(
                f"The assistant {type(assembly.program).__name__} returned {sorted(prediction.keys())}, "
                "but no 'answer'. Give its signature an output field of that name."
            )
        return prediction.answer

    def _closing_event(self, outcome: str | BaseException) -> ClosingEvent:
        usage, latency_s = self.progress.usage, time.perf_counter() - self._started_s
        trace_id = self._trace.trace_id if self._trace is not None else None
        if isinstance(outcome, str):
            return MessageFinished(answer=outcome, usage=usage, latency_s=latency_s, trace_id=trace_id)
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

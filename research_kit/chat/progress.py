"""What DSPy does while it answers, as events of a turn.

Owns the DSPy callback and the stream sink of one turn; does not start the program. Invariant: a fault here
never stops the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dspy
from dspy.streaming import StreamListener, StreamResponse
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from opentelemetry import trace

from research_kit import session
from research_kit.agent import ToolImage, ToolProgress, answer_listener
from research_kit.chat.events import Delta, Event, ToolFinished, ToolReported, ToolStarted, Usage, add_usage
from research_kit.chat.turn import current_turn
from research_kit.instrumentation.usage import LMCall
from research_kit.instrumentation.values import call_inputs, is_finish_tool
from research_kit.session.attribute_names import COMPLETION_START

__all__ = ["AnswerStream", "ProgressCallback", "answer_listeners", "report_progress"]

_ANSWER_FIELD = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenTool:
    name: str
    started_s: float


class ProgressCallback(BaseCallback):
    """Reports tool calls and adds up the usage of one turn.

    Args:
        emit: Takes the events.
        before_lm: Called before each LM call.
    """

    def __init__(self, emit: Callable[[Event], None], *, before_lm: Callable[[], None]) -> None:
        self._emit = emit
        self._before_lm = before_lm
        self._lock = threading.Lock()
        self._tools: dict[str, _OpenTool] = {}
        self._lm_calls: dict[str, LMCall] = {}
        self.usage = Usage()

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Report that a tool is called."""
        with session.guarded("chat tool"):
            if is_finish_tool(instance):
                return
            name = str(getattr(instance, "name", "tool"))
            self._tools[call_id] = _OpenTool(name=name, started_s=time.perf_counter())
            arguments = call_inputs(inputs)
            self._emit(ToolStarted(call_id=call_id, name=name, arguments=dict(arguments)))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Report how a tool call ended."""
        with session.guarded("chat tool"):
            tool = self._tools.pop(call_id, None)
            if tool is None:
                return
            self._emit(
                ToolFinished(
                    call_id=call_id,
                    name=tool.name,
                    result=str(outputs) if exception is None else str(exception),
                    is_error=exception is not None,
                    latency_s=time.perf_counter() - tool.started_s,
                    images=tuple(map(_address, getattr(outputs, "images", ()))),
                )
            )

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the call until it can be measured."""
        with session.guarded("chat LM"):
            self._lm_calls[call_id] = LMCall.of(instance, inputs)
            self._before_lm()

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Add the tokens and cost of the call."""
        with session.guarded("chat LM"):
            call = self._lm_calls.pop(call_id, None)
            if call is None or exception is not None:
                return
            used = call.measure()
            with self._lock:
                self.usage = add_usage(
                    self.usage,
                    Usage(
                        input_tokens=used.input_tokens,
                        output_tokens=used.output_tokens,
                        cost_usd=used.cost_usd,
                        unpriced_count=int(used.cost_usd is None),
                    ),
                )


def report_progress(progress: ToolProgress) -> None:
    """Report on the current message how far the current tool call is."""
    turn, call_id = current_turn.get(), ACTIVE_CALL_ID.get()
    if turn is not None and call_id is not None:
        turn.emit(
            ToolReported(
                call_id=str(call_id), done=progress.done, total=progress.total, message=progress.message
            )
        )


def _address(image: ToolImage) -> str:
    return f"data:{image.mime_type};base64,{image.base64_text}"


class AnswerStream:
    """Receives the LM's chunks and turns those of the answer into deltas.

    Args:
        emit: Takes the deltas.
        listeners: DSPy's stream listeners by the id of the predictor that they listen to.
    """

    def __init__(self, emit: Callable[[Event], None], listeners: dict[int, StreamListener]) -> None:
        self._emit = emit
        self._listeners = listeners
        self._started_spans: set[int] = set()
        self.text = ""

    async def send(self, chunk: Any) -> None:
        """Take one chunk; DSPy calls this while it reads the LM's answer."""
        with session.guarded("chat stream"):
            self._note_first_token()
            listener = self._listeners.get(getattr(chunk, "predict_id", None) or 0)
            piece = listener.receive(chunk) if listener is not None else None
            if isinstance(piece, StreamResponse):
                self._add(piece.chunk)

    def finish(self) -> None:
        """Take what the listeners still hold back."""
        with session.guarded("chat stream"):
            for listener in self._listeners.values():
                piece = listener.finalize()
                if piece is not None:
                    self._add(piece.chunk)

    def _add(self, text: str) -> None:
        if text:
            self._emit(Delta(text=text, offset=len(self.text)))
            self.text += text

    def _note_first_token(self) -> None:
        # DSPy reads the stream inside the LM call, so the current span is its generation.
        span = trace.get_current_span()
        span_id = span.get_span_context().span_id
        if span.is_recording() and span_id not in self._started_spans:
            self._started_spans.add(span_id)
            span.set_attribute(COMPLETION_START, datetime.now(UTC).isoformat().replace("+00:00", "Z"))


def answer_listeners(program: dspy.Module) -> dict[int, StreamListener]:
    """Return the listener of the predictor that writes the answer, by predictor id; none when none does."""
    if not any(_ANSWER_FIELD in predictor.signature.output_fields for predictor in program.predictors()):
        return {}
    listener = answer_listener(program)
    return {id(listener.predict): listener}

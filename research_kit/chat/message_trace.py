"""The trace of one chat message.

Owns the root observation ``chat`` and its attributes; what is below it comes from the instrumentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, format_trace_id

from research_kit import session
from research_kit.chat.events import MessageCancelled, MessageFailed, MessageFinished
from research_kit.chat.turn import Turn
from research_kit.config import captures_io
from research_kit.session.attribute_names import OBSERVATION, TRACE_METADATA, TRACE_NAME, TRACE_TAGS

if TYPE_CHECKING:
    from research_kit.chat.assembly import Assembly

__all__ = ["MessageTrace", "query_type"]

_NAME = "chat"
_TAGS = ("jupyter", "chat")
_CODE = re.compile(
    r"```|^\s*(def|class|import|from|for|while)\s|Traceback \(most recent|\w+(Error|Exception)\b", re.M
)
_WORD = re.compile(r"[^\W\d]\w*")

QueryType = Literal["code", "data", "general"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTrace:
    """The open trace of a message.

    Attributes:
        trace_id: Its id in hexadecimal; None while nothing is traced.
        context: The context in which everything that belongs to the message runs.
    """

    trace_id: str | None
    context: Context
    span: Span

    @classmethod
    def start(cls, text: str, message_number: int) -> MessageTrace:
        """Open the trace of the user's message ``text``."""
        # An empty context: a message is a trace of its own, whatever runs in the kernel.
        span = session.get_tracer().start_span(_NAME, context=Context())
        # Langfuse keeps trace attributes per observation, so they are set before any child begins.
        span.set_attribute(TRACE_NAME, _NAME)
        span.set_attribute(TRACE_TAGS, _TAGS)
        span.set_attribute(OBSERVATION + "type", "span")
        span.set_attribute(TRACE_METADATA + "message_number", json.dumps(message_number))
        span.set_attribute(TRACE_METADATA + "input_length", json.dumps(len(text)))
        if captures_io():
            span.set_attribute(OBSERVATION + "input", json.dumps(text, ensure_ascii=False))
        session.mark_open(span)
        span_context = span.get_span_context()
        return cls(
            trace_id=format_trace_id(span_context.trace_id) if span_context.is_valid else None,
            context=trace.set_span_in_context(span, Context()),
            span=span,
        )

    def describe(self, turn: Turn, assembly: Assembly) -> None:
        """Add what is known once the assistant is there: the kind of question, the cells run, the model."""
        kind = query_type(turn.text, assembly.get_namespace())
        self.span.set_attribute(TRACE_TAGS, (*_TAGS, kind))
        known = {
            "query_type": kind,
            "cell_count": _cell_count(assembly.get_namespace()),
            "lm": assembly.lm.name,
            "is_retry": turn.is_retry,
        }
        for name, value in known.items():
            if value is not None:
                self.span.set_attribute(TRACE_METADATA + name, json.dumps(value))

    def end(self, event: MessageFinished | MessageFailed | MessageCancelled) -> None:
        """Close the trace with how the message ended."""
        answer = "" if isinstance(event, MessageFailed) else event.answer
        self.span.set_attribute(TRACE_METADATA + "output_length", json.dumps(len(answer)))
        if isinstance(event, MessageFailed):
            self._set_level("ERROR", event.error)
        elif isinstance(event, MessageCancelled):
            self._set_level("WARNING", "stopped by the user")
        if answer and captures_io():
            self.span.set_attribute(OBSERVATION + "output", json.dumps(answer, ensure_ascii=False))
        self.span.end()

    def _set_level(self, level: str, message: str) -> None:
        self.span.set_attribute(OBSERVATION + "level", level)
        self.span.set_attribute(OBSERVATION + "status_message", message)


def query_type(text: str, namespace: Mapping[str, Any]) -> QueryType:
    """Return what a question is about: ``code`` it shows, ``data`` it names, or something ``general``."""
    if _CODE.search(text):
        return "code"
    names = {name for name in namespace if not name.startswith("_")}
    return "data" if names.intersection(_WORD.findall(text)) else "general"


def _cell_count(namespace: Mapping[str, Any]) -> int | None:
    """Return how many cells were run; None outside IPython, which keeps their texts as ``In``."""
    cells = namespace.get("In")
    return len(cells) - 1 if isinstance(cells, list) and cells else None

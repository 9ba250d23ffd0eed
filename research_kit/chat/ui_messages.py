"""The messages of a panel, and how a turn's events change them.

Owns the values behind the transcript and their form on the wire; knows no widgets and no threads.
Invariant: folding the events of a whole turn into a running answer leaves an answer that is not running.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from research_kit._words import duration_text, visible_text
from research_kit.chat.events import (
    ApprovalNeeded,
    Delta,
    Event,
    MessageCancelled,
    MessageFailed,
    MessageFinished,
    MessageStarted,
    Notice,
    ToolFinished,
    ToolReported,
    ToolStarted,
    Usage,
)
from research_kit.chat.feedback import Feedback
from research_kit.chat.markdown import clean_text, is_picture, render_markdown
from research_kit.chat.past import PastMessage, PastTool
from research_kit.chat.ui_format import usage_texts
from research_kit.masking import masked_text
from research_kit.plain_text import plain_characters

__all__ = [
    "Batch",
    "ChatMessage",
    "State",
    "ToolCall",
    "fold_event",
    "fold_events",
    "kept_text",
    "message_to_wire",
    "past_to_messages",
    "tool_to_wire",
]

_MAX_TOOL_CHARACTERS = 20_000
_MAX_PROGRESS_CHARACTERS = 120
_MAX_DESCRIPTION_CHARACTERS = 300
# What a word that is still being written may consist of, when it may turn out to be a secret.
# Letters of alphabets that divide words by blanks; in others a line would wait.
_WORD = "".join(map(chr, (*range(0x21, 0x7F), *range(0xA1, 0x250), *range(0x370, 0x530))))

State = Literal["sent", "queued", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call of an answer.

    Attributes:
        call_id: The engine's id of the call.
        name: Name of the tool.
        arguments: The arguments as JSON text.
        result: What the tool answered; None while it runs.
        is_error: True when the tool failed.
        latency_s: Duration in seconds; None while it runs.
        is_asking: Whether it waits until the user allows it.
        is_changed: Whether it asks because its description is another than when it was allowed.
        origin: What its server says that it does, while it asks.
        progress: How far it is, as it says itself; empty when it does not say.
        images: The pictures of its answer, as data addresses.
    """

    call_id: str
    name: str
    arguments: str
    result: str | None = None
    is_error: bool = False
    latency_s: float | None = None
    is_asking: bool = False
    is_changed: bool = False
    origin: str = ""
    progress: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """What one side said.

    Attributes:
        message_id: Unique in its panel.
        role: Who said it.
        text: The text as written, without secrets; Markdown when the assistant wrote it.
        arrived: What has come of the text of a running answer, as it came; never sent to a browser.
        state: ``sent`` for the user's messages, the state of the turn for answers.
        message_number: Number in the conversation.
        tools: The tool calls of an answer, in the order of their start.
        usage: Tokens and cost; None until the turn has ended.
        latency_s: Duration of the turn in seconds; None until it has ended.
        trace_id: The trace of the turn; None when telemetry is off.
        error: Why the answer failed, and what to do.
        notice: What the user should know besides.
        feedback: The thumb that the answer was given before.
    """

    message_id: str
    role: Literal["user", "assistant"]
    text: str = ""
    arrived: str = ""
    state: State
    message_number: int = 0
    tools: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    latency_s: float | None = None
    trace_id: str | None = None
    error: str | None = None
    notice: str | None = None
    feedback: Feedback | None = None


class Batch(NamedTuple):
    """What a few events did: the answer after them, and what the browser has not seen of it.

    Attributes:
        answer: The answer after the events.
        offset: Where the new text begins, in characters; None when the text did not change.
        changed_tools: The tool calls that began or ended.
    """

    answer: ChatMessage
    offset: int | None
    changed_tools: tuple[ToolCall, ...]


def kept_text(text: str) -> str:
    """Return ``text`` as it may be kept in a notebook: without secrets, and without lone surrogates."""
    return masked_text(clean_text(text))


def fold_events(answer: ChatMessage, events: Iterable[Event]) -> Batch:
    """Apply ``events`` to ``answer`` one by one and say what changed."""
    before, offset = answer, None
    for event in events:
        answer = fold_event(answer, event)
    if answer.state == "running" and answer.arrived != before.arrived:
        answer = replace(answer, text=_shown_so_far(answer.arrived))
        if answer.text != before.text:
            # All of it again, where a secret has been recognised further up.
            offset = len(before.text) if answer.text.startswith(before.text) else 0
    changed_tools = tuple(tool for tool in answer.tools if tool not in before.tools)
    return Batch(answer, offset, changed_tools)


def fold_event(answer: ChatMessage, event: Event) -> ChatMessage:
    """Return ``answer`` as it is after ``event``."""
    match event:
        case MessageStarted():
            return replace(answer, trace_id=event.trace_id, state="running")
        case Delta():
            return replace(answer, arrived=answer.arrived[: event.offset] + clean_text(event.text))
        case ToolStarted():
            return replace(answer, tools=(*answer.tools, _started_call(event)))
        case ApprovalNeeded():
            return replace(answer, tools=tuple(_asking_call(tool, event) for tool in answer.tools))
        case Notice():
            told = [answer.notice] if answer.notice else []
            return replace(answer, notice="\n".join([*told, _shown(event.text)]))
        case ToolReported():
            return replace(answer, tools=tuple(_reporting_call(tool, event) for tool in answer.tools))
        case ToolFinished():
            return replace(answer, tools=tuple(_finished_call(tool, event) for tool in answer.tools))
        case MessageFinished() | MessageCancelled():
            state: State = "finished" if isinstance(event, MessageFinished) else "cancelled"
            return replace(_ended(answer, event), text=kept_text(event.answer), state=state)
        case MessageFailed():
            text, error = kept_text(answer.arrived), _shown(event.error)
            return replace(_ended(answer, event), text=text, state="failed", error=error)


def message_to_wire(message: ChatMessage, *, trace_url: str | None) -> dict[str, Any]:
    """Return the message as the browser reads it; Markdown is rendered once the answer is whole."""
    is_whole_answer = message.role == "assistant" and message.state not in ("queued", "running")
    return {
        "message_id": message.message_id,
        "role": message.role,
        "state": message.state,
        "message_number": message.message_number,
        "text": message.text,
        "html": render_markdown(message.text) if is_whole_answer else "",
        "html_length": len(message.text) if is_whole_answer else 0,
        "error": message.error,
        "notice": message.notice,
        "tools": [tool_to_wire(tool) for tool in message.tools],
        "usage": asdict(message.usage) if message.usage else None,
        "latency_s": message.latency_s,
        "trace_id": message.trace_id,
        "trace_url": trace_url,
        "feedback": message.feedback._asdict() if message.feedback else None,
        "texts": {**usage_texts(message.usage), "latency": duration_text(message.latency_s)},
    }


def past_to_messages(past: PastMessage) -> tuple[ChatMessage, ChatMessage]:
    """Return question and answer of a message that was read back."""
    number = past.message_number
    question = ChatMessage(
        message_id=f"q{number}", role="user", text=past.question, state="sent", message_number=number
    )
    is_failed = past.error is not None and not past.answer
    answer = ChatMessage(
        message_id=f"a{number}",
        role="assistant",
        text=past.answer,
        state="failed" if is_failed else "finished",
        message_number=number,
        tools=tuple(map(_past_call, past.tools)),
        usage=past.usage,
        latency_s=past.latency_s,
        trace_id=past.trace_id,
        error=past.error if is_failed else None,
        feedback=past.feedback,
    )
    return question, answer


def tool_to_wire(tool: ToolCall) -> dict[str, Any]:
    """Return the tool call as the browser reads it."""
    return {
        **asdict(tool),
        "images": list(tool.images),
        "texts": {"latency": duration_text(tool.latency_s)},
    }


def _shown_so_far(arrived: str) -> str:
    """Return what may be shown of a text that goes on: its last word waits, for it may become a secret."""
    return masked_text(arrived.rstrip(_WORD))


def _past_call(past: PastTool) -> ToolCall:
    started = _started_call(ToolStarted(call_id=past.call_id, name=past.name, arguments=past.arguments))
    finished = ToolFinished(
        call_id=past.call_id,
        name=past.name,
        result=past.result,
        is_error=past.is_error,
        latency_s=past.latency_s,
    )
    return _finished_call(started, finished)


def _started_call(event: ToolStarted) -> ToolCall:
    arguments = json.dumps(event.arguments, indent=2, ensure_ascii=False, default=repr)
    return ToolCall(
        call_id=event.call_id,
        name=visible_text(event.name, limit=_MAX_PROGRESS_CHARACTERS),
        arguments=_shortened(_shown(arguments)),
    )


def _shown(text: str) -> str:
    """Return what others wrote as it is shown: the user allows a call by what can be read."""
    return plain_characters(kept_text(text))


def _asking_call(tool: ToolCall, event: ApprovalNeeded) -> ToolCall:
    if tool.call_id != event.call_id:
        return tool
    return replace(tool, is_asking=True, is_changed=event.is_changed, origin=_origin_text(event))


def _origin_text(event: ApprovalNeeded) -> str:
    """Return who says what about a tool: the words of a stranger, so that nobody takes them for ours."""
    server = f"The server {visible_text(event.server, limit=_MAX_PROGRESS_CHARACTERS)}"
    said = visible_text(kept_text(event.description).strip(), limit=_MAX_DESCRIPTION_CHARACTERS)
    text = f"{server} says of it: “{said}”" if said else f"{server} does not describe it"
    return f"{text}, and that it may destroy something." if event.is_destructive else text


def _reporting_call(tool: ToolCall, event: ToolReported) -> ToolCall:
    # Also the first sign that the user has allowed the call.
    if tool.call_id != event.call_id:
        return tool
    return replace(tool, is_asking=False, progress=_progress_text(event))


def _progress_text(event: ToolReported) -> str:
    if event.total:
        share = min(max(event.done / event.total, 0.0), 1.0)
        part = f"{share:.0%}"
    else:
        part = f"{event.done:g}"
    return " · ".join(filter(None, [part, _shown(event.message)[:_MAX_PROGRESS_CHARACTERS]]))


def _finished_call(tool: ToolCall, event: ToolFinished) -> ToolCall:
    if tool.call_id != event.call_id:
        return tool
    return replace(
        tool,
        result=_shortened(_shown(event.result)),
        is_error=event.is_error,
        latency_s=event.latency_s,
        is_asking=False,
        images=tuple(address for address in event.images if is_picture(address)),
    )


def _ended(answer: ChatMessage, event: MessageFinished | MessageFailed | MessageCancelled) -> ChatMessage:
    return replace(answer, usage=event.usage, latency_s=event.latency_s, trace_id=event.trace_id)


def _shortened(text: str) -> str:
    rest_count = len(text) - _MAX_TOOL_CHARACTERS
    if rest_count <= 0:
        return text
    return f"{text[:_MAX_TOOL_CHARACTERS]}\n… {rest_count:,} more characters; the trace has all of them."

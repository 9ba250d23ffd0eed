"""Input and output of one span, from whichever convention the client follows.

Owns the order in which the conventions are tried, which is that of the recorded server. Invariant: text that
a client serialized is passed on unchanged; only what the store itself has to assemble is serialized here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from research_kit.store.flattened import unflattened
from research_kit.store.jsontext import compact, parse_or_none
from research_kit.store.spans import Span

__all__ = ["Content", "is_content", "read_content"]

_MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_DETAILS_EVENT = "gen_ai.client.inference.operation.details"
_CHOICE_EVENT = "gen_ai.choice"
_INSTRUCTIONS = "gen_ai.system_instructions"
_OWN = ("langfuse.observation.input", "langfuse.observation.output")
_VERCEL_INPUT = ("ai.prompt.messages", "ai.prompt", "ai.toolCall.args")
_VERCEL_OUTPUT = (
    "ai.response.text",
    "ai.result.text",
    "ai.toolCall.result",
    "ai.response.object",
    "ai.result.object",
    "ai.response.toolCalls",
    "ai.result.toolCalls",
)
_ADK_TOOL = ("gcp.vertex.agent.tool_call_args", "gcp.vertex.agent.tool_response")
_LIVEKIT_INPUT = ("lk.input_text", "lk.user_transcript", "lk.chat_ctx")
_LIVEKIT_OUTPUT = ("lk.function_tool.output", "lk.response.text")
_PYDANTIC = ("pydantic_ai.all_messages", "final_result")

# Each a client's pair of names, in the order in which they are looked for.
_PAIRS = (
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("input.value", "output.value"),
    ("input", "output"),
)
_MESSAGES = ("gen_ai.input.messages", "gen_ai.output.messages")
_TOOL = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")
_FLATTENED = (("gen_ai.prompt", "gen_ai.completion"), ("llm.input_messages", "llm.output_messages"))

_NAMES = frozenset(
    (
        *_OWN,
        *("langfuse.trace.input", "langfuse.trace.output"),
        *_VERCEL_INPUT,
        *_VERCEL_OUTPUT,
        *("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response", *_ADK_TOOL),
        *("prompt", "all_messages_events", "events"),
        *_LIVEKIT_INPUT,
        *_LIVEKIT_OUTPUT,
        "lk.user_input",
        *(name for pair in _PAIRS for name in pair),
        *_PYDANTIC,
        _INSTRUCTIONS,
        *_MESSAGES,
        *_TOOL,
    )
)
_PREFIXES = tuple(name for pair in _FLATTENED for name in pair)

_Found = tuple[Any, Any] | None


class Content(NamedTuple):
    """Input and output as text."""

    input: str | None
    output: str | None


def read_content(span: Span) -> Content:
    """Find the input and the output of a span."""
    for source in _SOURCES:
        found = source(span)
        if found is not None:
            return Content(_text(found[0]), _text(found[1]))
    return Content(None, None)


def is_content(name: str) -> bool:
    """Whether an attribute is for inputs and outputs, and so is not repeated in the metadata."""
    return name in _NAMES or name.startswith(_PREFIXES)


def _text(value: object) -> str | None:
    """Return a value as text; None when it is missing or empty."""
    if value is None or isinstance(value, str):
        return value or None
    return compact(value)


def _pair(attributes: Mapping[str, Any], names: tuple[str, str]) -> _Found:
    found = attributes.get(names[0]), attributes.get(names[1])
    return found if any(_counts(value) for value in found) else None


def _counts(value: object) -> bool:
    """Whether a value is more than nothing, as JavaScript sees it: an empty list is."""
    return bool(value) or isinstance(value, (list, dict))


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


def _own(span: Span) -> _Found:
    found = span.attributes.get(_OWN[0]), span.attributes.get(_OWN[1])
    return None if found == (None, None) else found


def _vercel(span: Span) -> _Found:
    attributes = span.attributes
    if span.origin.scope_name != "ai":
        return None
    entered = _first(attributes, _VERCEL_INPUT)
    text, calls = attributes.get("ai.response.text"), attributes.get("ai.response.toolCalls")
    if text is not None and calls is not None:
        given: Any = compact({"role": "assistant", "content": text, "tool_calls": calls})
    else:
        given = text or _first(attributes, _VERCEL_OUTPUT[1:])
    messages = _gen_ai(attributes) or (None, None)
    return messages[0] if entered is None else entered, messages[1] if given is None else given


def _details_event(span: Span) -> _Found:
    found = (_gen_ai(attributes) for name, attributes in span.events if name == _DETAILS_EVENT)
    return next((content for content in found if content), None)


def _message_events(span: Span) -> _Found:
    """Read the events ``gen_ai.user.message`` (one per message) and ``gen_ai.choice``."""
    messages = [
        {"role": match.group(1), **attributes}
        for name, attributes in span.events
        if (match := _MESSAGE_EVENT.fullmatch(name))
    ]
    choices = [attributes for name, attributes in span.events if name == _CHOICE_EVENT]
    if not messages and not choices:
        return None
    return messages or None, choices[0] if len(choices) == 1 else choices or None


def _content_events(span: Span) -> _Found:
    """Read ``gen_ai.content.prompt`` and ``gen_ai.content.completion``, older than those of messages."""
    events = dict(reversed(span.events))
    entered, given = events.get("gen_ai.content.prompt"), events.get("gen_ai.content.completion")
    if entered is None and given is None:
        return None
    entered, given = entered or {}, given or {}
    inner = unflattened(entered, "gen_ai.prompt"), unflattened(given, "gen_ai.completion")
    return inner[0] or entered, inner[1] or given


def _adk(span: Span) -> _Found:
    names = ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response")
    # A tool call carries both, the one of the language model empty.
    chosen = [
        name if span.attributes.get(name) not in (None, "", "{}") else tool
        for name, tool in zip(names, _ADK_TOOL, strict=True)
    ]
    return _pair(span.attributes, (chosen[0], chosen[1]))


def _logfire(span: Span) -> _Found:
    return _pair(span.attributes, ("prompt", "all_messages_events"))


def _livekit(span: Span) -> _Found:
    entered = _first(span.attributes, _LIVEKIT_INPUT)
    given = next((span.attributes[name] for name in _LIVEKIT_OUTPUT if span.attributes.get(name)), None)
    return (entered, given) if _counts(entered) or _counts(given) else None


def _events_attribute(span: Span) -> _Found:
    given = span.attributes.get("events")
    events = parse_or_none(given) if isinstance(given, str) else given
    if not isinstance(events, list):
        return None
    events = [event for event in events if isinstance(event, dict)]
    choice = next((event for event in events if event.get("event.name") == _CHOICE_EVENT), None)
    messages = [event for event in events if event.get("event.name") != _CHOICE_EVENT]
    return (messages or None, choice) if messages or choice else None


def _pairs(span: Span) -> _Found:
    found = (_pair(span.attributes, names) for names in _PAIRS)
    return next((content for content in found if content), None)


def _pydantic(span: Span) -> _Found:
    attributes = span.attributes
    found = _pair(attributes, _PYDANTIC) if span.origin.scope_name == "pydantic-ai" else None
    if found is None:
        return _pair(attributes, ("tool_arguments", "tool_response"))
    return _with_instructions(found[0], attributes), found[1]


def _flattened(span: Span) -> _Found:
    for pair in _FLATTENED:
        if any(key.startswith(pair) for key in span.attributes):
            return unflattened(span.attributes, pair[0]), unflattened(span.attributes, pair[1])
    return None


def _gen_ai(attributes: Mapping[str, Any]) -> _Found:
    """Read messages or a tool call as the semantic conventions name them now."""
    found = _pair(attributes, _MESSAGES)
    if found is None:
        return _pair(attributes, _TOOL)
    return _with_instructions(found[0], attributes), found[1]


def _with_instructions(entered: Any, attributes: Mapping[str, Any]) -> Any:
    """Put system instructions, which have an attribute of their own, in front of the messages."""
    given = attributes.get(_INSTRUCTIONS)
    messages = parse_or_none(entered) if isinstance(entered, str) else entered
    if not given or not isinstance(messages, list):
        return entered
    if any(isinstance(message, dict) and message.get("role") == "system" for message in messages):
        return entered
    return [*_system_messages(given), *messages]


def _system_messages(given: Any) -> list[dict[str, Any]]:
    parsed = parse_or_none(given) if isinstance(given, str) else given
    if not isinstance(parsed, list):
        return [{"role": "system", "content": str(given if parsed is None else parsed)}]
    if parsed and all(isinstance(part, dict) and "parts" in part for part in parsed):
        return [{"role": "system", **part} for part in parsed]
    texts = [part.get("content") if isinstance(part, dict) else part for part in parsed]
    content = "\n".join(text for text in texts if isinstance(text, str))
    return [{"role": "system", "content": content}] if content else []


_SOURCES: tuple[Callable[[Span], _Found], ...] = (
    _own,
    _vercel,
    _details_event,
    _message_events,
    _content_events,
    _adk,
    _logfire,
    _livekit,
    _events_attribute,
    _pairs,
    _pydantic,
    _flattened,
    lambda span: _gen_ai(span.attributes),
)

"""Input and output of one span, from whichever convention the client follows.

Owns the order in which the conventions are tried. Invariant: text that a client serialized is passed on
unchanged; only what the store itself has to assemble is serialized here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from research_kit.store.jsontext import compact, parse_or_none
from research_kit.store.spans import Span

__all__ = ["Content", "read_content"]

_MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_DETAILS_EVENT = "gen_ai.client.inference.operation.details"
_INSTRUCTIONS = "gen_ai.system_instructions"

# Keys that repeat input and output in a flattened form; none of them belongs into the metadata.
_FLATTENED = ("llm.input_messages", "llm.output_messages", "gen_ai.prompt", "gen_ai.completion")

_PAIRS = (
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("input.value", "output.value"),
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
)
_LAST_PAIR = ("input", "output")


class Content(NamedTuple):
    """Input and output as text, and the attributes that they were made of."""

    input: str | None
    output: str | None
    consumed: frozenset[str]


def read_content(span: Span) -> Content:
    """Find the input and the output of a span."""
    attributes = span.attributes
    consumed = {key for key in attributes if key.startswith(_FLATTENED)}
    for pair in _PAIRS:
        if pair[0] in attributes or pair[1] in attributes:
            consumed.update(pair, (_INSTRUCTIONS,))
            entered, given = _text(attributes.get(pair[0])), _text(attributes.get(pair[1]))
            return Content(_with_instructions(entered, pair, attributes), given, frozenset(consumed))
    for source in _ASSEMBLED:
        entered, given = source(span)
        if entered is not None or given is not None:
            return Content(entered, given, frozenset(consumed))
    entered, given = (_text(attributes.get(key)) for key in _LAST_PAIR)
    return Content(entered, given, frozenset((*consumed, *_LAST_PAIR)))


def _text(value: object) -> str | None:
    """Return an attribute as text; None when it is missing or empty."""
    if value is None or isinstance(value, str):
        return value or None
    return compact(value)


def _with_instructions(
    entered: str | None, pair: tuple[str, str], attributes: Mapping[str, Any]
) -> str | None:
    """Put system instructions, which have an attribute of their own, in front of the messages."""
    instructions = parse_or_none(attributes.get(_INSTRUCTIONS))
    messages = parse_or_none(entered)
    is_conversation = pair[0] == "gen_ai.input.messages" and isinstance(messages, list)
    if not is_conversation or not isinstance(instructions, list):
        return entered
    texts = [part.get("content") for part in instructions if isinstance(part, dict)]
    content = "\n".join(text for text in texts if isinstance(text, str))
    return compact([{"role": "system", "content": content}, *messages])


def _flattened_messages(span: Span) -> tuple[str | None, str | None]:
    if not any(key.startswith(("gen_ai.prompt", "gen_ai.completion")) for key in span.attributes):
        return None, None
    return _unflattened(span.attributes, "gen_ai.prompt"), _unflattened(span.attributes, "gen_ai.completion")


def _openinference_messages(span: Span) -> tuple[str | None, str | None]:
    if not any(key.startswith(("llm.input_messages", "llm.output_messages")) for key in span.attributes):
        return None, None
    return _unflattened(span.attributes, "llm.input_messages"), _unflattened(
        span.attributes, "llm.output_messages"
    )


def _unflattened(attributes: Mapping[str, Any], prefix: str) -> str:
    """Rebuild ``prefix.0.role``, ``prefix.0.content``, ... as a list, and other keys as an object."""
    if prefix in attributes:
        return _text(attributes[prefix]) or ""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(f"{prefix}."):
            _plant(tree, key[len(prefix) + 1 :].split("."), value)
    return compact(_listed(tree))


def _plant(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        below = tree.get(step)
        if not isinstance(below, dict):
            below = tree[step] = {}
        tree = below
    tree[path[-1]] = value


def _listed(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    values = {key: _listed(value) for key, value in tree.items()}
    if values and all(key.isascii() and key.isdecimal() for key in values):
        return [values[key] for key in sorted(values, key=lambda key: (len(key), key))]
    return values


def _event_messages(span: Span) -> tuple[str | None, str | None]:
    """Read the events ``gen_ai.user.message`` (one per message) and ``gen_ai.choice``."""
    messages = [
        {"role": match.group(1), **attributes}
        for name, attributes in span.events
        if (match := _MESSAGE_EVENT.fullmatch(name))
    ]
    choices = [attributes for name, attributes in span.events if name == "gen_ai.choice"]
    given = choices[0] if len(choices) == 1 else choices
    return (compact(messages) if messages else None), (compact(given) if choices else None)


def _event_details(span: Span) -> tuple[str | None, str | None]:
    for name, attributes in span.events:
        if name == _DETAILS_EVENT:
            return _text(attributes.get("gen_ai.input.messages")), _text(
                attributes.get("gen_ai.output.messages")
            )
    return None, None


_ASSEMBLED: tuple[Callable[[Span], tuple[str | None, str | None]], ...] = (
    _flattened_messages,
    _openinference_messages,
    _event_messages,
    _event_details,
)

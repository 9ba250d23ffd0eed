"""Texts as readers see them: Markdown, JSON, and messages of a conversation.

Owns the guess what a person said and what was answered, for pages only. Invariant: what leaves here is markup
of a fixed set of harmless elements, whatever the text says; what is not recognised is shown whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt

from research_kit.store.jsontext import parse_or_text
from research_kit.store.markup import Markup, element, fragment

__all__ = ["Message", "prose_of", "read_messages", "shown", "shown_json", "shown_markdown"]

_TEXT_KEYS = (
    "question",
    "answer",
    "text",
    "content",
    "output",
    "input",
    "message",
    "prompt",
    "query",
    "result",
)
_MAX_CHARACTERS = 20_000
_TAGS = frozenset(
    (
        *("p", "br", "strong", "em", "s", "code", "pre", "ul", "ol", "li", "blockquote", "a", "hr"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
    )
)
_JSON_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>\b(?:true|false|null)\b)'
    r"|(?P<number>-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: Who said it.
        text: What was said, as Markdown; None when the content is no text.
        content: The content as it is, when it is no text.
        calls: Tools that the message asks for: name and arguments.
    """

    role: str
    text: str | None
    content: Any
    calls: tuple[tuple[str, str], ...]


def shown(raw: str) -> Markup:
    """Return an input or output as markup: prose as Markdown, everything else as JSON."""
    value = parse_or_text(raw)
    text = prose_of(value)
    return shown_json(value) if text is None else shown_markdown(text)


def prose_of(value: Any) -> str | None:
    """Return the text that a person would read in a value; None when it is a structure."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return json.dumps(value)
    if isinstance(value, dict):
        texts = [value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)]
        return texts[0] if len(texts) == 1 else None
    messages = _messages(value)
    return messages[-1].text if messages else None


def read_messages(raw: str | None) -> list[Message]:
    """Return the messages in an input or output; none when it is no conversation."""
    value = parse_or_text(raw) if raw else None
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, dict) and "role" in value:
        value = [value]
    return _messages(value)


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        return []
    if not all(isinstance(part, dict) and isinstance(part.get("role"), str) for part in value):
        return []
    return [_message(part) for part in value]


def _message(part: Mapping[str, Any]) -> Message:
    content = part.get("content", part.get("parts"))
    text = content if isinstance(content, str) else _joined(content)
    return Message(
        role=part["role"],
        text=text,
        content=None if text is not None else content,
        calls=tuple(_calls(part.get("tool_calls"))),
    )


def _joined(content: Any) -> str | None:
    """Return the text of a content in parts; None when there is something else in it."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    texts = [part.get("text", part.get("content")) for part in content]
    if not all(isinstance(text, str) for text in texts):
        return None
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _calls(given: Any) -> Iterator[tuple[str, str]]:
    for call in given if isinstance(given, list) else []:
        if isinstance(call, dict):
            function = call["function"] if isinstance(call.get("function"), dict) else call
            arguments = function.get("arguments", "")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            yield str(function.get("name", "")), text


def shown_markdown(text: str) -> Markup:
    """Return Markdown as markup; HTML in it is shown as text, and pictures are links."""
    html = nh3.clean(
        _markdown().render(_shortened(text)),
        tags=set(_TAGS),
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
    )
    return element("div", Markup(html), class_="prose")


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    return MarkdownIt("js-default", {"breaks": True, "linkify": False}).disable("image")


def shown_json(value: Any) -> Markup:
    """Return a value as indented JSON with its parts told apart."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    text = _shortened(text)
    if isinstance(value, str):
        return element("pre", text)
    pieces: list[str] = []
    end = 0
    for match in _JSON_TOKEN.finditer(text):
        pieces += [text[end : match.start()], element("span", match[0], class_=f"json-{match.lastgroup}")]
        end = match.end()
    return element("pre", fragment(pieces, text[end:]))


def _shortened(text: str) -> str:
    hidden = len(text) - _MAX_CHARACTERS
    return text if hidden <= 0 else f"{text[:_MAX_CHARACTERS]}\n… {hidden:,} more characters"

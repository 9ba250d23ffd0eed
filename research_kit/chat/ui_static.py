"""The transcript as HTML that needs no kernel and no widget.

Owns what saved notebooks, nbconvert and viewers show, and in which parts it is kept up to date. Invariant:
text is escaped, and answers are the HTML that `render_markdown` sanitised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from research_kit.chat.markdown import highlight_apart

__all__ = ["PART_COUNT", "STATIC_CLASS", "StaticCopy", "render_body", "render_static"]

STATIC_CLASS = "rk-chat-static"
"""Class of the root element; the live panel's style sheet hides it, so that no reader sees both."""

PART_COUNT = 3
"""In how many outputs the copy is shown, oldest messages first."""

# The first parts take whole multiples of so many messages: an answer changes the last part, which is short.
_PART_SIZES = (128, 16)
# Notebook 7 folds outputs that are taller than about 1,800 pixels, the live panel with them.
_STYLE = "max-height: 50em; overflow: auto; overflow-wrap: anywhere"
_MESSAGE_STYLES = {
    "user": "margin: 1em 0; padding: .5em 1em; border-radius: .6em; background: rgba(128, 128, 128, .13)",
    "assistant": "margin: 1em 0; padding: 0 1em",
}
_NAMES = {"user": "You", "assistant": "Assistant"}
_NOTES = {
    "queued": "The question still waited.",
    "running": "The answer was still being written.",
    "cancelled": "Stopped.",
    "failed": "Failed.",
}


class StaticCopy:
    """Which parts of the copy must be shown again after the messages changed."""

    def __init__(self) -> None:
        self._bounds = [(0, 0)] * PART_COUNT

    def changed_parts(
        self, messages: Sequence[Mapping[str, Any]], status: Mapping[str, Any], *, changed_from: int
    ) -> Iterator[tuple[int, str]]:
        """Yield number and HTML of each part in which a message from ``changed_from`` on is, or was."""
        for part, bounds in enumerate(_bounds(len(messages))):
            is_last = part == PART_COUNT - 1
            if bounds != self._bounds[part] or bounds[1] > changed_from or is_last:
                self._bounds[part] = bounds
                yield part, _render_part(messages[slice(*bounds)], status if is_last else None)


def render_static(transcript: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> str:
    """Return the transcript as one HTML element.

    Args:
        transcript: Messages as the panel's ``transcript`` trait holds them.
        status: The panel's ``status`` trait.
    """
    return _render_part(transcript, status)


def render_body(messages: Sequence[Mapping[str, Any]], status: Mapping[str, Any] | None) -> str:
    """Return the messages, and the facts of the session when they are given, for an element around them."""
    facts = "" if status is None else _render_facts(status)
    return "".join(map(_render_message, messages)) + facts


def _bounds(count: int) -> list[tuple[int, int]]:
    ends = [count // size * size for size in _PART_SIZES]
    return list(pairwise([0, *ends, count]))


def _render_part(messages: Sequence[Mapping[str, Any]], status: Mapping[str, Any] | None) -> str:
    if not messages and status is None:
        return f'<div class="{STATIC_CLASS}"></div>'
    return f'<div class="{STATIC_CLASS}" style="{_STYLE}">{render_body(messages, status)}</div>'


def _render_facts(status: Mapping[str, Any]) -> str:
    session = escape(str(status["session_id"] or "none"))
    texts = status["texts"]
    facts = [
        f"messages {status['message_count']}",
        f"tokens {texts['tokens']}",
        f"cost {texts['cost']}",
    ]
    return f"<p><strong>Chat</strong> · session <code>{session}</code> · {' · '.join(map(escape, facts))}</p>"


def _render_message(message: Mapping[str, Any]) -> str:
    body = highlight_apart(message["html"])
    if not body or message["state"] == "running":
        body = f'<p style="white-space: pre-wrap">{escape(message["text"])}</p>'
    tools = "".join(_render_tool(tool) for tool in message["tools"])
    notes = [_NOTES.get(message["state"]), message["error"]]
    note = "".join(f"<p><em>{escape(text)}</em></p>" for text in notes if text)
    role = message["role"]
    name = f"<p><strong>{_NAMES[role]}</strong></p>"
    return f'<div style="{_MESSAGE_STYLES[role]}">{name}{tools}{body}{note}{_render_figures(message)}</div>'


def _render_figures(message: Mapping[str, Any]) -> str:
    if message["usage"] is None:
        return ""
    texts = message["texts"]
    figures = [f"tokens {texts['tokens']}", f"cost {texts['cost']}", texts["latency"]]
    shown = " · ".join(map(escape, figures))
    address = message["trace_url"]
    if address is not None and address.startswith(("http://", "https://")):
        shown += f' · <a href="{escape(address)}" target="_blank" rel="noopener noreferrer">trace</a>'
    return f"<p><small>{shown}</small></p>"


def _render_tool(tool: Mapping[str, Any]) -> str:
    result = "…" if tool["result"] is None else tool["result"]
    summary = f"{tool['name']} · {tool['texts']['latency']}{' · failed' if tool['is_error'] else ''}"
    style = "max-width: 100%"
    images = "".join(
        f'<p><img src="{escape(address)}" alt="Picture by {escape(tool["name"])}" style="{style}"></p>'
        for address in tool["images"]
    )
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f"<pre>{escape(tool['arguments'])}</pre><pre>{escape(result)}</pre></details>{images}"
    )

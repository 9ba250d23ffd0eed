"""The transcript as HTML that needs no kernel and no widget.

Owns what saved notebooks, nbconvert and viewers show. Invariant: text is escaped, and answers are the HTML
that `render_markdown` sanitised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["STATIC_CLASS", "render_static"]

STATIC_CLASS = "rk-chat-static"
"""Class of the root element; the live panel's style sheet hides it, so that no reader sees both."""

# Notebook 7 folds outputs that are taller than about 1,800 pixels, the live panel with them.
_STYLE = "max-height: 50em; overflow: auto"
_NAMES = {"user": "You", "assistant": "Assistant"}
_NOTES = {"running": "The answer was still being written.", "cancelled": "Stopped.", "failed": "Failed."}


def render_static(transcript: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> str:
    """Return the transcript as one HTML element.

    Args:
        transcript: Messages as the panel's ``transcript`` trait holds them.
        status: The panel's ``status`` trait.
    """
    messages = "".join(_render_message(message) for message in transcript)
    session = escape(str(status["session_id"] or "none"))
    texts = status["texts"]
    facts = " · ".join(
        escape(part)
        for part in (
            f"messages {status['message_count']}",
            f"tokens {texts['tokens']}",
            f"cost {texts['cost']}",
        )
    )
    return (
        f'<div class="{STATIC_CLASS}" style="{_STYLE}">'
        f"<p><strong>Chat</strong> · session <code>{session}</code> · {facts}</p>"
        f"{messages or '<p>No messages yet.</p>'}</div>"
    )


def _render_message(message: Mapping[str, Any]) -> str:
    name = _NAMES[message["role"]]
    body = message["html"] or f'<p style="white-space: pre-wrap">{escape(message["text"])}</p>'
    tools = "".join(_render_tool(tool) for tool in message["tools"])
    notes = [_NOTES.get(message["state"]), message["error"]]
    note = "".join(f"<p><em>{escape(text)}</em></p>" for text in notes if text)
    return f"<p><strong>{name}</strong></p>{tools}<blockquote>{body}{note}</blockquote>"


def _render_tool(tool: Mapping[str, Any]) -> str:
    result = "…" if tool["result"] is None else tool["result"]
    summary = f"{tool['name']} · {tool['texts']['latency']}{' · failed' if tool['is_error'] else ''}"
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f"<pre>{escape(tool['arguments'])}</pre><pre>{escape(result)}</pre></details>"
    )

"""A conversation as a file: Markdown, a page of HTML, or JSON lines.

Owns the forms; writes nothing to disk. Invariant: the page loads and runs nothing, and in no form is a
secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from research_kit.chat.markdown import defuse_markdown
from research_kit.chat.ui_static import render_body
from research_kit.errors import ConfigError

__all__ = ["ExportedFile", "export_transcript"]

_NAMES = {"user": "You", "assistant": "Assistant"}
_KEPT = ("role", "state", "text", "error", "usage", "latency_s", "trace_url", "feedback")
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|$!~-])")
_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;max-width:48em;margin:2em auto;padding:0 1em;color-scheme:light "
    "dark}blockquote{margin:0 0 1.5em;padding-left:1em;border-left:3px solid #8888}pre{overflow:auto;padding:"
    ".6em;background:#8882}table{border-collapse:collapse}td,th{padding:.2em .8em;border:1px solid #8886}"
    "img{max-width:100%}body{overflow-wrap:anywhere}"
)


class ExportedFile(NamedTuple):
    """A file for the user to keep: its name, its media type and its text."""

    name: str
    media_type: str
    text: str


def export_transcript(
    transcript: Sequence[Mapping[str, Any]], status: Mapping[str, Any], form: str
) -> ExportedFile:
    """Return the conversation as ``markdown``, ``html`` or ``jsonl``.

    Raises:
        ConfigError: When ``form`` is another word.
    """
    session_id = str(status["session_id"] or "none")
    # Any character may be in a session id, and few are safe in the name of a file.
    name = "chat-" + re.sub(r"[^A-Za-z0-9._-]+", "-", session_id)[:80].strip(".-")
    if form == "markdown":
        return ExportedFile(f"{name}.md", "text/markdown", _markdown(transcript, session_id))
    if form == "html":
        return ExportedFile(f"{name}.html", "text/html", _page(transcript, status))
    if form == "jsonl":
        return ExportedFile(f"{name}.jsonl", "application/jsonl", _json_lines(transcript, session_id))
    raise ConfigError(f"A chat cannot be exported as {form!r}. Give markdown, html or jsonl.")


def _markdown(transcript: Sequence[Mapping[str, Any]], session_id: str) -> str:
    title = _MARKDOWN_SPECIAL.sub(r"\\\1", session_id)
    parts = [f"# Chat of session {title}"]
    for message in transcript:
        parts.append(f"## {_NAMES[message['role']]}")
        parts += [_tool_text(tool) for tool in message["tools"]]
        # What people wrote is no Markdown; what the assistant wrote is, and loses its power to load images.
        is_answer = message["role"] == "assistant"
        parts.append(defuse_markdown(message["text"]) if is_answer else _fenced(message["text"]))
        if message["error"]:
            parts.append(_fenced(message["error"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _tool_text(tool: Mapping[str, Any]) -> str:
    called = f"{tool['name']} {tool['arguments']}\n{tool['result'] or ''}".rstrip()
    return _fenced(called)


def _fenced(text: str) -> str:
    """Return ``text`` in a fence that it cannot close itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _page(transcript: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    body = render_body(transcript, status)
    title = escape(f"Chat of session {status['session_id']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _json_lines(transcript: Sequence[Mapping[str, Any]], session_id: str) -> str:
    lines = []
    for message in transcript:
        tools = [
            {name: tool[name] for name in ("name", "arguments", "result", "is_error", "latency_s")}
            for tool in message["tools"]
        ]
        kept = {name: message[name] for name in _KEPT}
        lines.append(json.dumps({"session_id": session_id, **kept, "tools": tools}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)

"""The messages of a panel as its browsers know them.

Owns the value of the trait ``transcript`` and what is sent when it changes. Invariant: the trait always holds
everything, and only what changed is sent: each change has a number, so that a browser that missed one knows.
HTML is sent in parts, in which runs of the message's text are named instead of repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from research_kit.chat.markdown import GrowingMarkdown
from research_kit.chat.ui_messages import Batch, tool_to_wire

__all__ = ["Transcript", "pack_html"]

# A tag, or a run of text that is longer than its place in the message would be.
_RUN = re.compile(r'<(?:[^<>"]|"[^"]*")*>|(?P<text>[^<>&"]{16,})')


class Transcript:
    """The messages, changed in place.

    Args:
        value: The value of the trait: ``{"revision": 0, "messages": []}``.
        send: Sends a message to the browsers.
    """

    def __init__(self, value: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        self._value = value
        self._send = send
        self._growing: dict[str, GrowingMarkdown] = {}

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages, oldest first."""
        messages: list[dict[str, Any]] = self._value["messages"]
        return messages

    def index_of(self, message_id: str) -> int:
        """Return the place of a message; -1 when it is not there any more."""
        # From the end: it is nearly always one of the last.
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index]["message_id"] == message_id:
                return index
        return -1

    def find(self, message_id: str) -> dict[str, Any] | None:
        """Return a message; None when it is not there any more."""
        index = self.index_of(message_id)
        return self.messages[index] if index >= 0 else None

    def put(self, wires: Iterable[dict[str, Any]]) -> None:
        """Add messages, or replace those of the same id, and send them."""
        for wire in wires:
            index = self.index_of(wire["message_id"])
            if index < 0:
                self.messages.append(wire)
            else:
                self.messages[index] = wire
            self._change_message(wire)

    def cut(self, index: int) -> None:
        """Remove the message at ``index`` and all after it."""
        del self.messages[index:]
        self._change({"type": "cut", "message_count": index})

    def stream(self, wire: dict[str, Any], batch: Batch) -> None:
        """Take the answer as it is so far, and send the difference."""
        answer, index = batch.answer, self.index_of(wire["message_id"])
        if index < 0:
            return
        for tool in batch.changed_tools:
            self._send({"type": "tool", "message_id": answer.message_id, "tool": tool_to_wire(tool)})
        growing = self._growing.setdefault(answer.message_id, GrowingMarkdown())
        if batch.offset is not None:
            if batch.offset < growing.length:
                growing = self._growing[answer.message_id] = GrowingMarkdown()
            start, added = growing.length, growing.grow(answer.text)
            self._send(
                {
                    "type": "delta",
                    "message_id": answer.message_id,
                    "offset": batch.offset,
                    "text": answer.text[batch.offset :],
                    "html_start": start,
                    "html_end": growing.length,
                    "html": pack_html(added, answer.text, start),
                }
            )
        self.messages[index] = {**wire, "html": growing.html, "html_length": growing.length}

    def finish(self, wire: dict[str, Any]) -> None:
        """Take the whole answer, and send of text and HTML only what the browsers do not have."""
        index = self.index_of(wire["message_id"])
        if index < 0:
            return
        streamed, text = self.messages[index]["text"], wire["text"]
        growing = self._growing.pop(wire["message_id"], None) or GrowingMarkdown()
        keep_text = min(len(streamed), len(text)) if text.startswith(streamed[: len(text)]) else 0
        keep_html, html = growing.finish(text) if keep_text else (0, wire["html"])
        self.messages[index] = wire
        self._change_message({**wire, "html": html}, keep_text=keep_text, keep_html=keep_html)

    def _change_message(self, wire: dict[str, Any], *, keep_text: int = 0, keep_html: int = 0) -> None:
        html, text = pack_html(wire["html"], wire["text"], keep_html), wire["text"][keep_text:]
        sent = {**wire, "html": html, "text": text}
        self._change({"type": "message", "message": sent, "keep_text": keep_text, "keep_html": keep_html})

    def _change(self, message: dict[str, Any]) -> None:
        self._value["revision"] += 1
        self._send({**message, "revision": self._value["revision"]})


def pack_html(html: str, text: str, begin: int = 0) -> list[str | tuple[int, int]]:
    """Return ``html`` as parts: strings, and begin and end of runs that ``text`` has from ``begin`` on.

    What is named lies between tags and has no ``<``, ``>``, ``&`` or ``"``: a browser that takes those out of
    each run it puts in can get no markup from a text, even if its text were another one.
    """
    parts: list[str | tuple[int, int]] = []
    taken = 0
    for run in _RUN.finditer(html):
        found = text.find(run["text"], begin) if run["text"] else -1
        if found >= 0:
            begin = found + len(run["text"])
            parts += [html[taken : run.start()], (found, begin)]
            taken = run.end()
    return [part for part in (*parts, html[taken:]) if part]

"""A language model on HTTP whose answers follow a script.

Owns a server on a free loopback port that speaks OpenAI's API, and Anthropic's without streams. Invariant:
every request takes the next reply of the script; when the script is over the server answers 500, and the test
that left replies over is told so.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted-model"
_GATE_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the model.

    Attributes:
        text: The whole answer; a word is a token.
        pause_before: The stream waits before this piece of the text until `gate` is set.
        gate: Set by the test; a stream without a pause ignores it.
        status: Another HTTP status than 200 makes it an error answer with the text as its message.
    """

    text: str
    pause_before: str | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    status: int = 200

    def tokens(self) -> list[str]:
        """Return the pieces in which the answer is streamed."""
        words = self.text.split(" ")
        return [f"{word} " for word in words[:-1]] + words[-1:]


def adapter_reply(pause_before: str | None = None, **fields: str) -> Reply:
    """Return a reply in the format that DSPy's chat adapter reads."""
    parts = [f"[[ ## {name} ## ]]\n{value}\n" for name, value in fields.items()]
    return Reply(text="\n".join([*parts, "[[ ## completed ## ]]\n"]), pause_before=pause_before)


class ScriptedLM:
    """The script of a running server, and what was asked of it."""

    def __init__(self) -> None:
        self._replies: deque[Reply] = deque()
        self._open: list[Reply] = []
        self._lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.base_url = ""

    def script(self, *replies: Reply | str) -> None:
        """Add replies to the script; a text is a reply without more."""
        added = [Reply(text=reply) if isinstance(reply, str) else reply for reply in replies]
        with self._lock:
            self._replies.extend(added)
            self._open.extend(added)

    def take(self, request: dict[str, Any]) -> Reply | None:
        """Return the next reply; None when the script is over."""
        with self._lock:
            self.requests.append(request)
            return self._replies.popleft() if self._replies else None

    def finish(self) -> None:
        """End the script of one test: release its streams, and complain about replies nobody asked for."""
        with self._lock:
            for reply in self._open:
                reply.gate.set()
            left, count = len(self._replies), len(self.requests)
            self._open.clear()
            self._replies.clear()
            self.requests.clear()
        assert not left, f"{left} replies of the script were not asked for; there were {count} requests"


@contextmanager
def running_lm() -> Iterator[ScriptedLM]:
    """Serve a scripted model until the block is left."""
    lm = ScriptedLM()

    class Handler(_Handler):
        script = lm

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        lm.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, name="scripted-lm", daemon=True)
        thread.start()
        try:
            yield lm
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    script: ScriptedLM

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.script.headers.append(dict(self.headers))
        is_known = self.path.endswith(("/chat/completions", "/messages"))
        reply = self.script.take(request) if is_known else None
        if reply is None:
            count = len(self.script.requests)
            self._send_json(500, {"error": {"message": f"no reply for request {count} to {self.path}"}})
        elif reply.status != HTTPStatus.OK:
            self._send_json(reply.status, {"error": {"message": reply.text}})
        elif self.path.endswith("/messages"):
            self._send_json(200, _message(request, reply))
        elif request.get("stream"):
            self._stream(request, reply)
        else:
            message = {"role": "assistant", "content": reply.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send_json(200, _body("chat.completion", [choice], _usage(request, len(reply.tokens()))))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept by the script, not printed."""

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, request: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for token in reply.tokens():
                if reply.pause_before and token.startswith(reply.pause_before):
                    assert reply.gate.wait(_GATE_DEADLINE_S), "the test never opened the gate"
                self._send_chunk([{"index": 0, "delta": {"role": "assistant", "content": token}}])
            self._send_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
            self._send_chunk([], _usage(request, len(reply.tokens())))
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the client stopped the answer, which is what some tests do

    def _send_chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> None:
        body = _body("chat.completion.chunk", choices, usage)
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


def _body(kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
    body = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL, "choices": choices}
    return {**body, "usage": usage} if usage else body


def _message(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Return the answer as Anthropic's API gives it."""
    usage = _usage(request, len(reply.tokens()))
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
    }


def _usage(request: dict[str, Any], output_tokens: int) -> dict[str, int]:
    input_tokens = sum(len(str(message["content"]).split()) for message in request["messages"])
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }

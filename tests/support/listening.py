"""A server on this machine that answers as Langfuse and as a language model do, and keeps all it was told."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MESSAGE = {"role": "assistant", "content": "hello"}
_COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@dataclass
class Listener:
    """What a server was told: one text per request, with credentials also as they were before encoding."""

    base_url: str = ""
    redirects_to: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def heard(self, secret: str) -> bool:
        """Whether a request held ``secret`` anywhere."""
        return any(secret in request for request in self.requests) or any(
            secret.encode() in body for body in self.bodies
        )


@contextmanager
def listening() -> Iterator[Listener]:
    """Run a listener on a free port."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            kind, _, value = self.headers.get("authorization", "").partition(" ")
            shown = base64.b64decode(value).decode() if kind == "Basic" else value
            listener.requests.append(f"{self.command} {self.path}\n{shown}\n{self.headers}")
            is_packed = self.headers.get("content-encoding") == "gzip"
            listener.bodies.append(gzip.decompress(body) if is_packed else body)
            if listener.redirects_to:
                self.send_response(307)
                self.send_header("location", listener.redirects_to + self.path)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            is_model = self.path.endswith("/chat/completions")
            answer = _COMPLETION if is_model else {"data": [{"id": "project"}], "meta": {}}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener.base_url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()

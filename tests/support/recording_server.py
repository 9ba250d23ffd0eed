"""A stand-in for a Langfuse server that takes everything and remembers it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PUBLIC_KEY, SECRET_KEY = "pk-lf-recorded", "sk-lf-recorded"
_PROJECT = {
    "id": "project",
    "name": "recorded",
    "organization": {"id": "organization", "name": "recorded"},
    "metadata": {},
}


@dataclass
class RecordingServer:
    """What has arrived.

    Attributes:
        base_url: Its address.
        bodies: Every body as it came, unpacked.
        requests: Method, path and public key of every request.
        scores: The scores, whether they came in a list or alone.
    """

    base_url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name this server."""
        return {
            "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
            "LANGFUSE_SECRET_KEY": SECRET_KEY,
            "LANGFUSE_BASE_URL": self.base_url,
        }

    @property
    def text(self) -> str:
        """Everything that arrived, for the question whether something is in it."""
        return b"\n".join(self.bodies).decode("utf-8", "replace")


@contextmanager
def recording_server() -> Iterator[RecordingServer]:
    """Run the server in a thread."""
    recorded = RecordingServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(recorded))
    server.daemon_threads = True
    recorded.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield recorded
    server.shutdown()
    server.server_close()


def _handler(recorded: RecordingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self._note(body)
            if self.path.endswith("/traces"):
                recorded.spans += _spans(body)
            elif self.path.endswith("/scores"):
                content = json.loads(body)
                recorded.scores += content if isinstance(content, list) else [content]
            self._answer({"id": "taken"})

        def do_GET(self) -> None:
            self._note(b"")
            self._answer({"data": [_PROJECT], "meta": {}})

        def _note(self, body: bytes) -> None:
            recorded.bodies.append(body)
            recorded.requests.append((self.command, self.path, self.headers.get("authorization", "")))

        def _answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


def _spans(body: bytes) -> list[dict[str, Any]]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        {
            "name": span.name,
            "id": span.span_id.hex(),
            "trace_id": span.trace_id.hex(),
            **{item.key: _value(item.value) for item in span.attributes},
        }
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return (
        [_value(item) for item in value.array_value.values]
        if kind == "array_value"
        else getattr(value, kind or "string_value")
    )

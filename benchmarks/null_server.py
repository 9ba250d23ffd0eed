"""A server that takes every span and keeps none, for measuring the sender alone.

A path that begins with a number, as ``/503/api/...``, is answered with that status; one that begins with
``slow`` after five seconds, with ``cut`` not at all, with ``garbage`` by a page that is none of Langfuse's.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SLOW_S = 5.0
_PROJECTS = b'{"data": [{"id": "bench", "name": "bench"}]}'


class NullServer(ThreadingHTTPServer):
    """Keeps the bodies until somebody asks how many spans they held."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._bodies: list[bytes] = []
        self._lock = threading.Lock()

    def keep(self, body: bytes) -> None:
        """Take a body."""
        with self._lock:
            self._bodies.append(body)

    def take_span_count(self) -> int:
        """Count the spans of the bodies, and forget them."""
        # Only here, so that counting does not compete with what is measured.
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        with self._lock:
            bodies, self._bodies = self._bodies, []
        exports = (ExportTraceServiceRequest.FromString(_unpacked(body)) for body in bodies)
        return sum(
            len(scope.spans)
            for export in exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it the answer's two small packets wait for each other.
    disable_nagle_algorithm = True
    server: NullServer

    def do_POST(self) -> None:
        """Take a body, or refuse it with the status that the path begins with."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        first = self.path.split("/")[1]
        if self._misbehaves(first):
            return
        self.server.keep(body)
        self._answer(200, b"{}")

    def do_GET(self) -> None:
        """Say the number of spans, or name the project."""
        first = self.path.split("/")[1]
        if first == "count":
            self._answer(200, str(self.server.take_span_count()).encode())
        elif not self._misbehaves(first):
            self._answer(200, _PROJECTS)

    def _misbehaves(self, fault: str) -> bool:
        """Answer as ``fault`` says; False when that is as usual."""
        if fault == "slow":
            time.sleep(_SLOW_S)
        elif fault == "cut":
            self.close_connection = True
            return True
        elif fault == "garbage":
            self._answer(200, b"<html>Please log in</html>")
            return True
        elif fault.isdecimal():
            self._answer(int(fault), b'{"message": "refused"}')
            return True
        return False

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _unpacked(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def main() -> None:
    """Print the port, and serve until the process is ended."""
    server = NullServer()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

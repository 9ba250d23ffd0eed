"""A real HTTP server process that forwards to a store while it is healthy, and misbehaves on command.

Run as a program it serves two ports of this machine, the misbehaving one and one to command it, and ends when
its standard input is closed. `running_server` starts it and returns its remote control.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx

PAGE = b"<html><body>Please log in</body></html>"
# How long a request is held before somebody looks whether the server has been healed meanwhile.
POLL_S = 0.02


@dataclass(frozen=True)
class MisbehavingServer:
    """The remote control of the server process."""

    base_url: str
    control_url: str

    def misbehave(self, fault: str, **options: Any) -> None:
        """Begin a fault; see `_Front.misbehave` for their names."""
        httpx.post(f"{self.control_url}/{fault}", json=options).raise_for_status()

    def heal(self) -> None:
        """Forward everything again; connections that hang are cut."""
        self.misbehave("healthy")

    def requests(self) -> list[dict[str, Any]]:
        """Return the posts since the fault began: ``at_s``, ``fault``, ``status`` (None: not answered)."""
        return httpx.get(self.control_url).json()


@contextmanager
def running_server(upstream_url: str) -> Iterator[MisbehavingServer]:
    """Run the server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, __file__, upstream_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        yield MisbehavingServer(**json.loads(process.stdout.readline()))
        process.stdin.close()
        process.wait(timeout=30)


class _Front:
    """The misbehaving port: forwards, or does what the fault of the moment says."""

    def __init__(self, upstream_url: str) -> None:
        self.upstream = urlsplit(upstream_url)
        self.fault = "healthy"
        self.options: Mapping[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        # Holds the port, without listening, while the server is gone: a connection is refused, and nobody
        # else gets the port.
        self._holder = _bound_socket(0)
        self.port = self._holder.getsockname()[1]
        self._server: ThreadingHTTPServer | None = None
        self._listen()

    def misbehave(self, fault: str, options: Mapping[str, Any]) -> None:
        if not hasattr(_Handler, f"do_fault_{fault}") and fault != "refused":
            raise ValueError(f"no fault {fault!r}")
        self.options, self.requests, self.fault = options, [], fault
        if fault == "refused":
            self._close()
        else:
            self._listen()

    def _listen(self) -> None:
        if self._server is None:
            server = _Server(("127.0.0.1", self.port), _Handler, bind_and_activate=False)
            server.socket.close()
            server.socket = _bound_socket(self.port)
            server.server_address = ("127.0.0.1", self.port)
            server.front = self
            server.server_activate()
            threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
            self._server = server

    def _close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    front: _Front

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is the purpose of this server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # A connection kept alive would outlive a closed port.
    close_connection = True

    def do_POST(self) -> None:
        front = self.server.front
        self.close_connection = True
        self.seen: dict[str, Any] = {"at_s": time.monotonic(), "fault": front.fault, "status": None}
        if self.command == "POST":
            front.requests.append(self.seen)
        getattr(self, f"do_fault_{front.fault}")(**front.options)

    do_GET = do_POST

    def do_fault_healthy(self) -> None:
        self._forward(self._body())

    def do_fault_status(self, status: int, headers: Mapping[str, str] = {}) -> None:
        self._body()
        self._answer(status, b'{"message": "told to"}', headers)

    def do_fault_garbage(self) -> None:
        self._body()
        self._answer(200, PAGE, {"content-type": "text/html"})

    def do_fault_redirect(self) -> None:
        self._body()
        login = f"http://127.0.0.1:{self.server.front.port}/login"
        self._answer(302, PAGE, {"location": login, "content-type": "text/html"})

    def do_fault_body(self, body: str, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        """Answer with anything."""
        self._body()
        self._answer(status, body.encode("latin-1"), {"content-type": "application/json", **headers})

    def do_fault_deep(self) -> None:
        self._body()
        self._answer(200, b"[" * 200_000, {"content-type": "application/json"})

    def do_fault_bomb(self, unpacked_mb: int) -> None:
        """Answer a little that unpacks to much."""
        self._body()
        self._answer(200, _bomb(unpacked_mb), {"content-encoding": "gzip"})

    def do_fault_endless(self, chunk_bytes: int, delay_s: float = 0.0) -> None:
        """Answer without an end: much at once, or a byte now and then."""
        self._body()
        self.send_response(200)
        self.end_headers()
        self._pour(bytes(chunk_bytes), delay_s)

    def do_fault_endless_head(self, delay_s: float) -> None:
        """Send a header without an end, a byte now and then."""
        self._body()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-header: ")
        self._pour(b"x", delay_s)

    def do_fault_poison(self, name: str, status: int) -> None:
        """Fail on what holds ``name``, and take everything else."""
        body = self._body()
        content = body
        with suppress(OSError):
            content = gzip.decompress(body)
        if self.command == "POST" and name.encode() in content:
            self._answer(status, b'{"message": "told to"}')
        else:
            self._forward(body)

    def _pour(self, chunk: bytes, delay_s: float) -> None:
        fault = self.server.front.fault
        with suppress(OSError):
            while self.server.front.fault == fault:
                self.wfile.write(chunk)
                time.sleep(delay_s)

    def do_fault_too_large(self, max_spans: int) -> None:
        body = self._body()
        if self.command == "POST" and _count_spans(body) > max_spans:
            self._answer(413, b'{"message": "too large"}')
        else:
            self._forward(body)

    def do_fault_slow(self, delay_s: float) -> None:
        body = self._body()
        self._hold(delay_s)
        self._forward(body)

    def do_fault_blackhole(self) -> None:
        self._hold()

    def do_fault_taken_silently(self) -> None:
        """Take what is sent, and never say so."""
        self._ask_upstream(self._body())
        self.seen["taken"] = True
        self._hold()

    def do_fault_cut_request(self) -> None:
        if self.command == "POST":
            self.rfile.read(10)
        self._reset()

    def do_fault_cut_answer(self) -> None:
        """Take what is sent, and break off in the middle of saying so."""
        _, content = self._ask_upstream(self._body())
        self.send_response(200)
        self.send_header("content-length", str(len(content) + 100))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self._reset()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _forward(self, body: bytes) -> None:
        status, content = self._ask_upstream(body)
        self._answer(status, content, {"content-type": "application/json"})

    def _ask_upstream(self, body: bytes) -> tuple[int, bytes]:
        upstream = self.server.front.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
        headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str] = {}) -> None:
        self.seen["status"] = status
        self.send_response(status)
        for name, text in {**headers, "content-length": str(len(content)), "connection": "close"}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def _hold(self, delay_s: float = float("inf")) -> None:
        fault, until_s = self.server.front.fault, time.monotonic() + delay_s
        while self.server.front.fault == fault and time.monotonic() < until_s:
            time.sleep(POLL_S)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@cache
def _bomb(unpacked_mb: int) -> bytes:
    packing = zlib.compressobj(1, wbits=31)
    parts = [packing.compress(bytes(1_000_000)) for _ in range(unpacked_mb)]
    return b"".join((*parts, packing.flush()))


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _count_spans(body: bytes) -> int:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with suppress(OSError):
        body = gzip.decompress(body)
    request = ExportTraceServiceRequest.FromString(body)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _control_handler(front: _Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, json.dumps(front.requests).encode())

        def do_POST(self) -> None:
            options = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                front.misbehave(self.path.strip("/"), options)
            except ValueError as error:
                self._answer(400, str(error).encode())
            else:
                self._answer(200, b"{}")

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def main() -> None:
    front = _Front(sys.argv[1])
    control = ThreadingHTTPServer(("127.0.0.1", 0), _control_handler(front))
    control.daemon_threads = True
    threading.Thread(target=control.serve_forever, args=(POLL_S,), daemon=True).start()
    addresses = {
        "base_url": f"http://127.0.0.1:{front.port}",
        "control_url": f"http://127.0.0.1:{control.server_address[1]}",
    }
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

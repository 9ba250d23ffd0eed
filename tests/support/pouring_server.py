"""A server of raw bytes: each connection gets what a function writes, however malformed."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Write = Callable[[bytes], None]
Script = Callable[[str, Write], None]


@contextmanager
def pouring(script: Script) -> Iterator[str]:
    """Run a server whose ``script`` gets the path that is asked for and what writes to the client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536) or _raise(OSError())
                # What is not read would reset the connection when it is closed, and take the answer along.
                rest = _content_length(head) - len(head.partition(b"\r\n\r\n")[2])
                while rest > 0:
                    rest -= len(connection.recv(min(rest, 65536)) or _raise(OSError()))
                script(head.split(b" ")[1].decode(), connection.sendall)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _content_length(head: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def _raise(error: Exception) -> bytes:
    raise error


def whole(body: bytes, *, headers: str = "") -> bytes:
    """Return an answer with a body."""
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    return head.encode() + body


def page(rows: list[object], cursor: object = None) -> bytes:
    """Return an answer with a page of rows."""
    meta = {} if cursor is None else {"cursor": cursor}
    return whole(json.dumps({"data": rows, "meta": meta}).encode())


def drip(write: Write, chunk: bytes, interval_s: float) -> None:
    """Write for ever, until the client is gone."""
    while True:
        write(chunk)
        time.sleep(interval_s)

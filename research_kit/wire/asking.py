"""One request, and an answer that may cost no more than was agreed.

Owns reading answers: their bytes, their encoding, their time. Knows neither paths nor what an answer means.
Invariant: whatever a server sends, and however slowly, `BoundedClient.request` returns or raises within its
bounds, and has never held much more than the bytes that were allowed.
"""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import httpx

__all__ = ["SMALL_ANSWER_BYTES", "AnswerError", "AnswerTooLargeError", "BoundedClient", "Bounds"]

# What says "taken", a project or a version has less than a thousand bytes.
SMALL_ANSWER_BYTES = 1_000_000
# Headers of compression on top of what is compressed.
_ENVELOPE_BYTES = 65_536
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_PLAIN_ENCODINGS = ("", "identity")
_PACKED_ENCODINGS = ("gzip", "x-gzip", "deflate")
# These describe the bytes on the wire, which nobody sees beyond here.
_WIRE_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class AnswerError(httpx.TransportError):
    """An answer that was given up: too large, too slow, or in an encoding that nobody asked for."""


class AnswerTooLargeError(AnswerError):
    """An answer with more bytes than were allowed; less may be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one answer may cost.

    Attributes:
        total_s: How long it may take from the first byte of the request to the last of the answer.
        max_bytes: How many bytes it may have, unpacked.
    """

    total_s: float
    max_bytes: int = SMALL_ANSWER_BYTES


class BoundedClient:
    """Sends requests through a client, and reads their answers within bounds.

    Args:
        client: Makes the connections; its owner closes it.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._connections: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        bounds: Bounds,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **parts: Any,
    ) -> httpx.Response:
        """Return the whole answer, unpacked.

        Args:
            method: ``GET``, ``POST``...
            url: The whole address.
            bounds: What the answer may cost.
            auth: User and password.
            headers: Headers of the request.
            **parts: What `httpx.Client.build_request` takes besides: ``content``, ``json``, ``params``...

        Raises:
            httpx.TransportError: When there is no answer; `AnswerError` when it is beyond the bounds.
        """
        request = self._client.build_request(
            method,
            url,
            headers={"accept-encoding": "gzip", **(headers or {})},
            **parts,
        )
        return self.send(request, bounds=bounds, auth=auth)

    def send(
        self, request: httpx.Request, *, bounds: Bounds, auth: tuple[str, str] | None = None
    ) -> httpx.Response:
        """Return the whole answer to a request that is made already; the errors are those of `request`."""
        request.extensions = {**request.extensions, "trace": self._note_connection}
        deadline = _Deadline(bounds.total_s, self._cut_connections)
        try:
            with deadline, closing(self._client.send(request, auth=auth, stream=True)) as answer:
                return _whole(answer, _read(answer, bounds, deadline))
        except httpx.TransportError as error:
            if deadline.is_over and not isinstance(error, AnswerError):
                raise deadline.error() from error
            raise

    def _note_connection(self, event: str, info: Mapping[str, Any]) -> None:
        # A connection that is used again announces itself no more, so it is remembered.
        if event.endswith(("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")):
            with self._lock:
                self._connections.add(info["return_value"])

    def _cut_connections(self) -> None:
        """End the waiting on every connection; other requests of this client are cut with the slow one."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):  # closed already
                # As a plain socket: an encrypted one forgets its keys first, under the hands of its reader.
                socket.socket.shutdown(connection.get_extra_info("socket"), socket.SHUT_RDWR)


class _Deadline:
    """A total time, after which the connection is cut from another thread.

    Time-outs of a client count from byte to byte: one byte now and then would hold it for ever.
    """

    def __init__(self, total_s: float, cut: Callable[[], None]) -> None:
        self._total_s = total_s
        self._end_s = time.monotonic() + total_s
        self._timer = threading.Timer(total_s, cut)
        self._timer.name, self._timer.daemon = "research-kit-deadline", True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end_s

    def error(self) -> AnswerError:
        """Say so."""
        return AnswerError(f"its answer was not complete after {round(self._total_s, 1):g} s")


def _read(answer: httpx.Response, bounds: Bounds, deadline: _Deadline) -> bytes:
    """Return the unpacked body."""
    if answer.is_stream_consumed:  # a transport without a network may have made it whole
        if len(answer.content) > bounds.max_bytes:
            raise _too_large(bounds)
        return answer.content
    unpack = _unpacker(answer)
    parts: list[bytes] = []
    raw_bytes = size = 0
    for chunk in answer.iter_raw():
        if deadline.is_over:
            raise deadline.error()
        raw_bytes += len(chunk)
        part = unpack(chunk, bounds.max_bytes - size + 1)
        size += len(part)
        if size > bounds.max_bytes or raw_bytes > bounds.max_bytes + _ENVELOPE_BYTES:
            raise _too_large(bounds)
        parts.append(part)
    if deadline.is_over:  # a body without a length ends where it is cut, as if it were whole
        raise deadline.error()
    return b"".join(parts)


def _unpacker(answer: httpx.Response) -> Callable[[bytes, int], bytes]:
    """Return what unpacks a chunk to at most so many bytes."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in _PLAIN_ENCODINGS:
        return lambda chunk, _: chunk
    if encoding not in _PACKED_ENCODINGS:
        raise AnswerError(f"its answer is encoded as {encoding[:40]!r}, which nobody asked for")
    unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)

    def unpack(chunk: bytes, max_bytes: int) -> bytes:
        try:
            return unpacking.decompress(chunk, max_bytes)
        except zlib.error as error:
            raise AnswerError("its answer cannot be unpacked") from error

    return unpack


def _too_large(bounds: Bounds) -> AnswerTooLargeError:
    return AnswerTooLargeError(f"its answer has more than {bounds.max_bytes:,} bytes")


def _whole(answer: httpx.Response, content: bytes) -> httpx.Response:
    kept = [(name, text) for name, text in answer.headers.multi_items() if name not in _WIRE_HEADERS]
    named = {
        name: value for name, value in answer.extensions.items() if name in ("http_version", "reason_phrase")
    }
    return httpx.Response(
        answer.status_code, headers=kept, content=content, request=answer.request, extensions=named
    )

"""Where the server listens, and how long a connection may say nothing.

Owns the sockets; answers nothing. Invariant: clients of this package have a way that only their user can have
opened, and a connection on which no whole request arrives does not stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from research_kit.config import temporary_directory
from research_kit.errors import ConfigError
from research_kit.store.reaching import SOCKET_BUFFER_BYTES
from research_kit.store.state import StorePaths

__all__ = ["Listeners", "PatientProtocol", "open_listeners"]

_logger = logging.getLogger("research_kit.store")
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """The sockets of one server.

    Attributes:
        sockets: All of them; the first is the one for browsers.
        socket_path: The Unix socket; None where there are none.
        refused_port: The port that was wanted and that another program has.
    """

    sockets: list[socket.socket]
    socket_path: str | None
    refused_port: int | None

    @property
    def port(self) -> int:
        """The port on the loopback interface."""
        return int(self.sockets[0].getsockname()[1])

    def listen(self, backlog: int) -> None:
        """Let clients connect from now on."""
        for opened in self.sockets:
            opened.listen(backlog)

    def close(self) -> None:
        """Close all, and leave no socket file behind."""
        for opened in self.sockets:
            opened.close()
        if self.socket_path is not None:
            Path(self.socket_path).unlink(missing_ok=True)


def open_listeners(paths: StorePaths, wanted_port: int) -> Listeners:
    """Bind ``wanted_port``, or a free one when somebody else has it, and a Unix socket.

    The caller holds the server lock.
    """
    refused_port = None
    try:
        listener = _bind_port(wanted_port)
    except (OSError, OverflowError):
        listener, refused_port = _bind_port(0), wanted_port
    for path in _socket_places(paths):
        try:
            return Listeners(
                sockets=[listener, _bind_socket(path)], socket_path=str(path), refused_port=refused_port
            )
        except OSError as error:
            _logger.warning("Cannot make the socket %s: %s.", path, error)
    return Listeners(sockets=[listener], socket_path=None, refused_port=refused_port)


def _bind_port(port: int) -> socket.socket:
    # With the protocol named, or asyncio would not switch Nagle's algorithm off, which holds back each answer
    # on a connection that was used before for 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            # There, another program could otherwise bind the same port and stand between.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Lets a restarted server take its port back at once.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except BaseException:
        listener.close()
        raise
    return listener


def _socket_places(paths: StorePaths) -> Iterator[Path]:
    """Yield where the socket may be; a path may be too long for one, and not every disk takes one."""
    if not hasattr(socket, "AF_UNIX"):
        return
    yield paths.socket.absolute()
    name = hashlib.sha256(os.fsencode(paths.data_dir.resolve())).hexdigest()[:16]
    try:
        yield temporary_directory() / f"{name}.sock"
    except ConfigError as error:
        _logger.warning("%s", error)


def _bind_socket(path: Path) -> socket.socket:
    # With the server lock held, the server of what is there is gone.
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        listener.close()
        raise
    return listener


class PatientProtocol(H11Protocol):
    """HTTP with a limit to how long the header of a request may take; uvicorn has none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the connection."""
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family != socket.AF_INET:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._watch_from(self.cycle)

    def _watch_from(self, cycle: object) -> None:
        self.loop.call_later(_PATIENCE_S, self._end_if_stuck, cycle)

    def _end_if_stuck(self, before: object) -> None:
        if self.transport.is_closing():
            return
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self.cycle is before:
            self.transport.close()
        else:
            self._watch_from(self.cycle)

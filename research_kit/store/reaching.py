"""The way to the running store, and to nobody else.

Owns the connection on which a key or a trace may be sent: a Unix socket that only its user can have made, or,
where there are none, a port whose server has just shown on this very connection that it knows the key.
Invariant: whoever listens on the store's port, or hands on what is said there, learns nothing.
"""

from __future__ import annotations

import base64
import errno
import hmac
import http.client
import json
import re
import secrets
import socket
import stat
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from research_kit.private import owner_id

__all__ = [
    "PROOF_PATH",
    "SOCKET_BUFFER_BYTES",
    "StoreWay",
    "ask_store",
    "check_socket",
    "connect",
    "is_nonce",
    "prove",
]

PROOF_PATH = "/internal/proof"
_NONCE = re.compile(r"[0-9a-f]{64}")
_MAX_ANSWER_BYTES = 1_000_000
# A Unix socket holds less at a time than a loopback port, and each side then waits for the other.
SOCKET_BUFFER_BYTES = 1 << 22


class StoreWay(Protocol):
    """What is needed to reach the store."""

    @property
    def base_url(self) -> str:
        """Its address for browsers."""

    @property
    def public_key(self) -> str:
        """Its public key."""

    @property
    def secret_key(self) -> str:
        """Its secret key."""

    @property
    def socket_path(self) -> Path | None:
        """Its Unix socket; None where there are none."""


def check_socket(path: Path) -> None:
    """Return when ``path`` is a socket of this user's in a folder that is closed to others.

    Raises:
        OSError: When it is not.
    """
    known, folder = path.lstat(), path.parent.stat()
    is_own = {known.st_uid, folder.st_uid} == {owner_id()}
    if not (stat.S_ISSOCK(known.st_mode) and is_own) or folder.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "this is no socket of your own store", str(path))


def connect(way: StoreWay, *, timeout_s: float) -> http.client.HTTPConnection:
    """Open a connection to the store.

    Raises:
        OSError: When nobody answers, or somebody who is not the store.
        http.client.HTTPException: When the answer is not HTTP.
    """
    if way.socket_path is not None:
        connection: http.client.HTTPConnection = _SocketConnection(way.socket_path, timeout_s)
        connection.connect()
        return connection
    port = urlsplit(way.base_url).port or 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.connect()
        # What was proven is this connection; one that is opened in its place would not be.
        connection.auto_open = 0
        _ask_for_proof(connection, way.secret_key, port)
    except BaseException:
        connection.close()
        raise
    return connection


def prove(secret_key: str, nonce: str, port: int) -> str:
    """Return what only a server on ``port`` that knows ``secret_key`` can answer to ``nonce``.

    With the port in it, the answer is worth nothing to a program on another port that has fetched it.
    """
    return hmac.digest(secret_key.encode(), f"research-kit server {port} {nonce}".encode(), "sha256").hex()


def is_nonce(text: str) -> bool:
    """Whether ``text`` is a number that a client may ask with."""
    return _NONCE.fullmatch(text) is not None


def ask_store(
    way: StoreWay, path: str, *, method: str = "GET", timeout_s: float = 2.0
) -> dict[str, Any] | None:
    """Return the JSON object that the store answers; None when it does not answer, or not with 200."""
    token = base64.b64encode(f"{way.public_key}:{way.secret_key}".encode()).decode()
    try:
        connection = connect(way, timeout_s=timeout_s)
        try:
            connection.request(method, path, headers={"Authorization": f"Basic {token}"})
            return _json_object(connection.getresponse())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None


def _ask_for_proof(connection: http.client.HTTPConnection, secret_key: str, port: int) -> None:
    nonce = secrets.token_hex(32)
    connection.request("GET", f"{PROOF_PATH}?nonce={nonce}")
    answer = str((_json_object(connection.getresponse()) or {}).get("proof"))
    if not hmac.compare_digest(answer.encode("utf-8", "replace"), prove(secret_key, nonce, port).encode()):
        raise ConnectionRefusedError(
            errno.ECONNREFUSED, f"another program than the store listens on port {port}"
        )


def _json_object(answer: http.client.HTTPResponse) -> dict[str, Any] | None:
    content = answer.read(_MAX_ANSWER_BYTES)
    if answer.status != http.client.OK:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over the store's socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("127.0.0.1", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket, once it is known to be this user's."""
        check_socket(self._path)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise

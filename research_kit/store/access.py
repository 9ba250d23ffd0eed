"""Who may ask: the key pair for the API, link proofs for the pages, and loopback for everything.

Owns the checks; serves nothing. Invariant: secrets are compared in constant time, and no request whose Host
is not this machine is served, so that a web page cannot reach the store under a name of its own (DNS
rebinding).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from research_kit.store.answers import ApiError, json_answer
from research_kit.store.state import Credentials

__all__ = ["LoopbackOnly", "check_key"]

_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class LoopbackOnly:
    """Refuses requests that reach the store under a foreign name, and writes that come from foreign pages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            problem = _foreign(headers.get(b"host", ""), headers.get(b"origin"), scope["method"])
            if problem:
                await json_answer({"message": problem, "error": "Forbidden"}, status_code=403)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


def check_key(request: Request, credentials: Credentials, *, names_error: bool = False) -> None:
    """Return when the request carries the key pair.

    Args:
        request: The request.
        credentials: The key pair.
        names_error: Whether the refusal also names its kind; one endpoint of the recorded server does.

    Raises:
        ApiError: 401, in the words of the recorded server.
    """
    problem = _key_problem(request.headers.get("authorization"), credentials)
    if problem:
        raise ApiError(401, {"message": problem, **({"error": "UnauthorizedError"} if names_error else {})})


def _key_problem(header: str | None, credentials: Credentials) -> str | None:
    if not header:
        return "No authorization header"
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "Invalid public key. Confirm that you've configured the correct host."
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        given = b""
    expected = f"{credentials.public_key}:{credentials.secret_key}".encode()
    is_right = hmac.compare_digest(given, expected)
    return None if is_right else "Invalid credentials. Confirm that you've configured the correct host."


def _foreign(host: str, origin: str | None, method: str) -> str | None:
    if _host_name(f"http://{host}") not in _LOOPBACK_HOSTS:
        return "The store answers on this machine only, under the name 127.0.0.1 or localhost."
    if method not in _READING_METHODS and origin is not None and _host_name(origin) not in _LOOPBACK_HOSTS:
        return "The store takes no writes from other web pages."
    return None


def _host_name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

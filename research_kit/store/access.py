"""Who may ask: the key pair for the API, link proofs for the pages, and loopback for everything.

Owns the checks; serves nothing. Invariant: secrets are compared in constant time, and a request whose Host is
not this machine is served only with a proof that a page under a name of its own (DNS rebinding) cannot have:
a link's token or the store's cookie. So the pages can be reached through the proxy of a hub.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from research_kit.store.answers import ApiError, json_answer
from research_kit.store.links import cookie_name, is_valid_proof
from research_kit.store.state import Credentials

__all__ = ["LoopbackOnly", "check_key", "proxy_prefix"]

_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_PREFIX = re.compile(r"(/[\w.~%@+-]+)+/?")
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class LoopbackOnly:
    """Refuses requests without proof under a foreign name, and writes that come from foreign pages."""

    def __init__(self, app: ASGIApp, credentials: Credentials) -> None:
        self._app = app
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "http":
            problem = self._problem(Request(scope))
            if problem:
                await json_answer({"message": problem, "error": "Forbidden"}, status_code=403)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)

    def _problem(self, request: Request) -> str | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if _host_name(f"http://{host}") in _LOOPBACK_HOSTS:
            is_own_page = origin is None or _host_name(origin) in _LOOPBACK_HOSTS
        elif self._is_proven(request):
            is_own_page = origin is None or urlsplit(origin).netloc == host
        else:
            return "The store answers on this machine only, under the name 127.0.0.1 or localhost."
        if request.method not in _READING_METHODS and not is_own_page:
            return "The store takes no writes from other web pages."
        return None

    def _is_proven(self, request: Request) -> bool:
        secret_key = self._credentials.secret_key
        cookie = request.cookies.get(cookie_name(self._credentials), "")
        token = request.query_params.get("token", "")
        return is_valid_proof(cookie, secret_key, purpose="cookie") or is_valid_proof(
            token, secret_key, purpose="link"
        )


def proxy_prefix(headers: Headers) -> str:
    """Return the path under which a proxy shows the store; empty without a proxy."""
    prefix = headers.get("x-forwarded-prefix") or headers.get("x-proxycontextpath") or ""
    # Two slashes in front would name another host.
    return prefix.rstrip("/") if _PREFIX.fullmatch(prefix) else ""


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


def _host_name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

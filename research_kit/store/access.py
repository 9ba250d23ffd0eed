"""Who may ask: the key pair for the API, a cookie or a link for the pages, and loopback for everything.

Owns the checks; serves nothing. Invariant: secrets are compared in constant time, and a request whose Host is
not this machine gets nothing that a page under a name of its own (DNS rebinding) could use: it is served only
with a link's token or the store's cookie. So the pages can be reached through the proxy of a hub.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from research_kit.store.answers import ApiError, json_answer
from research_kit.store.context import Store
from research_kit.store.links import cookie_age_s, cookie_name, page_host
from research_kit.store.state import Credentials

__all__ = ["LoopbackOnly", "UnreadBodies", "check_key", "cookie_age", "host_name", "proxy_prefix"]

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://([^/?#@\\]+)", re.IGNORECASE)
# What jupyter-server-proxy puts in front: the path of its server, and the port that it leads to.
_PREFIX = re.compile(r"(?:/[\w.~%@+-]+)*/proxy/(?:[\w.-]+:)?([0-9]{1,5})/?")
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What is shown to everybody: how to get in, and the looks of it.
_WAY_IN = re.compile(r"/(?:at-[0-9a-f]{32}/)?(?:static/[\w.]+|project/.*)?", re.DOTALL)
_SMALL_BODY_BYTES = 65_536


class LoopbackOnly:
    """Refuses requests without proof under a foreign name, and writes that come from foreign pages."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store
        self._own_hosts = LOOPBACK_HOSTS | {page_host(store.credentials.project_id)}

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
        if host_name(request) not in self._own_hosts and not self._is_let_in(request):
            return "The store answers on this machine only, under the name 127.0.0.1 or localhost."
        origin = request.headers.get("origin")
        if request.method not in _READING_METHODS and origin is not None and not _is_own(origin, request):
            return "The store takes no writes from other web pages."
        return None

    def _is_let_in(self, request: Request) -> bool:
        is_proxied = bool(proxy_prefix(request, self._store.port))
        is_way_in = request.method in _READING_METHODS and _WAY_IN.fullmatch(request.url.path) is not None
        token = request.query_params.get("token", "")
        return (
            (is_proxied and is_way_in)
            or self._store.tickets.find(token) is not None
            or cookie_age(request, self._store) is not None
        )


class UnreadBodies:
    """Ends a connection when its request was answered before the body was read, which may be long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and see whether its body is read."""
        if scope["type"] != "http" or not _has_large_body(Request(scope)):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def receive_noting() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive_noting, send_closing)


def _has_large_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _SMALL_BODY_BYTES


def host_name(request: Request) -> str:
    """Return the one name under which the store was asked, without the port; empty when it is none."""
    hosts = request.headers.getlist("host")
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return found[1].lower() if found else ""


def _is_own(origin: str, request: Request) -> bool:
    """Whether a page that writes is of this very host and port."""
    found = _ORIGIN.fullmatch(origin)
    return found is not None and found[1].lower() == request.headers.get("host", "").lower()


def cookie_age(request: Request, store: Store) -> float | None:
    """Return how many seconds ago the browser was let in; None when it was not."""
    cookie = request.cookies.get(cookie_name(store.credentials), "")
    return cookie_age_s(cookie, store.credentials.secret_key, store.port)


def proxy_prefix(request: Request, port: int) -> str:
    """Return the path below which jupyter-server-proxy shows the store; empty when it has no part in this."""
    prefix = request.headers.get("x-forwarded-prefix") or request.headers.get("x-proxycontextpath") or ""
    # Two slashes in front would name another host.
    found = _PREFIX.fullmatch(prefix)
    return prefix.rstrip("/") if found and int(found[1]) == port else ""


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

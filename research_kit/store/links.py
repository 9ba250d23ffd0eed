"""Addresses of the store's pages, the links that open them once, and the proof in a browser's cookie.

Owns the names under which browsers find the store; serves nothing. Invariants: an address holds no secret
and may be kept anywhere, a link is made when it is wanted and never kept; the proof opens pages for reading,
never the API, and holds for one port and key.

Cookies know no ports: one of 127.0.0.1 goes to every program of this machine. So each installation has a host
name of its own, and below it a place whose name only browsers learn that were let in.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import os
import re
import secrets
import time
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit

from research_kit.errors import StoreError
from research_kit.store.reaching import StoreWay, ask_store
from research_kit.store.state import Credentials

__all__ = [
    "COOKIE_LIFETIME_S",
    "LINKS_PATH",
    "PageHost",
    "cookie_age_s",
    "cookie_name",
    "make_cookie",
    "opening_link",
    "page_address",
    "page_host",
    "page_place",
    "session_page_path",
    "trace_page_path",
]

COOKIE_LIFETIME_S = 8 * 3600
LINKS_PATH = "/internal/links"
_COOKIE = re.compile(r"([0-9]{1,12})-[0-9a-f]{16}\.[0-9a-f]{64}")


class PageHost(StoreWay, Protocol):
    """A store whose pages can be opened."""

    @property
    def project_id(self) -> str | None:
        """Its one project."""


def page_host(project_id: str) -> str:
    """Return the host name of an installation; browsers take what ends in ``.localhost`` for this machine."""
    return f"rk-{hashlib.sha256(project_id.encode()).hexdigest()[:16]}.localhost"


def page_place(secret_key: str, port: int) -> str:
    """Return the first part of the paths below which a server on ``port`` shows its pages."""
    return f"at-{_sign(secret_key, f'place {port}')[:32]}"


def session_page_path(project_id: str, session_id: str) -> str:
    """Return the path of the replay of a session."""
    return f"/project/{project_id}/sessions/{quote(session_id, safe='')}"


def trace_page_path(project_id: str, trace_id: str) -> str:
    """Return the path of the tree of a trace."""
    return f"/project/{project_id}/traces/{quote(trace_id, safe='')}"


def page_address(store: PageHost, path: str) -> str:
    """Return the address of a page, which a browser that was let in before opens."""
    return f"{_root(store.base_url, store.project_id or '')}{path}"


def opening_link(store: PageHost, path: str, *, root: str | None = None, fits_any_host: bool = False) -> str:
    """Return a link to ``path`` that opens once, in a browser, during the next five minutes.

    Args:
        store: The running store.
        path: The page.
        root: Where a browser finds the store; None is its address, or on a JupyterHub the path of a proxy.
        fits_any_host: Lead to 127.0.0.1, for browsers that do not know names below ``.localhost``.

    Raises:
        StoreError: When the store does not answer.
    """
    question = urlencode({"any_host": "true"} if fits_any_host else {})
    answer = ask_store(store, f"{LINKS_PATH}?{question}", method="POST")
    if answer is None:
        raise StoreError(
            f"The store at {store.base_url} does not answer. Start it with: research-kit store start"
        )
    if root is None:
        root = store.base_url if fits_any_host else _root(store.base_url, store.project_id or "")
    separator = "&" if "?" in path else "?"
    return f"{root}{path}{separator}token={answer['token']}"


def _root(base_url: str, project_id: str) -> str:
    """Return where a browser finds the store: on a hub that is not this machine but a path of the hub."""
    port = urlsplit(base_url).port
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if not prefix or importlib.util.find_spec("jupyter_server_proxy") is None:
        return f"http://{page_host(project_id)}:{port}"
    hub = os.environ.get("JUPYTERHUB_PUBLIC_URL", "").rstrip("/")
    return hub.removesuffix(prefix.rstrip("/")) + f"/{prefix.strip('/')}/proxy/{port}"


def cookie_name(credentials: Credentials) -> str:
    """Return the name of the cookie that a token is exchanged for."""
    return f"research-kit-{credentials.project_id}"


def make_cookie(secret_key: str, port: int) -> str:
    """Return a text that lets a browser in on ``port`` for eight hours."""
    content = f"{int(time.time()) + COOKIE_LIFETIME_S}-{secrets.token_hex(8)}"
    return f"{content}.{_sign(secret_key, f'cookie {port} {content}')}"


def cookie_age_s(cookie: str, secret_key: str, port: int) -> float | None:
    """Return how long ago a cookie was made; None when it lets nobody in."""
    found = _COOKIE.fullmatch(cookie)
    if found is None:
        return None
    content, _, signature = cookie.partition(".")
    left_s = int(found[1]) - time.time()
    is_ours = hmac.compare_digest(signature, _sign(secret_key, f"cookie {port} {content}"))
    return COOKIE_LIFETIME_S - left_s if is_ours and left_s > 0 else None


def _sign(secret_key: str, text: str) -> str:
    return hmac.digest(secret_key.encode(), f"research-kit {text}".encode(), "sha256").hex()

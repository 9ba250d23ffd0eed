"""Opening connections to a server.

Owns how clients are made; sends nothing. Invariant: no fork happens while certificates are loaded, because
the child would inherit OpenSSL's locks and wait for them for ever.
"""

from __future__ import annotations

import os
import threading
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

__all__ = ["no_cookies", "open_client"]

_loading = threading.Lock()


def open_client(
    base_url: str, *, timeout_s: float, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Return a client for the server at ``base_url``; certificates are loaded only where there are some.

    Args:
        base_url: Root of the server.
        timeout_s: How long one step of a request may take.
        transport: Another way to the server than its host and port.
    """
    with _loading:
        verify = base_url.startswith("https:")
        return httpx.Client(timeout=timeout_s, verify=verify, transport=transport, cookies=no_cookies())


def no_cookies() -> CookieJar:
    """Return a jar that stays empty: a server could fill the memory of a client, and all of its requests."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )

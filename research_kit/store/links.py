"""Links that open the store's pages in a browser, and the proofs inside them.

Owns making and checking the two proofs: the token in a link and the cookie that a valid token is exchanged
for. Does not serve anything. Invariant: a proof is an expiry time and a number of its own, with their HMAC
under the secret key; it opens pages for reading, never the API, and does not reveal the secret key.
"""

from __future__ import annotations

import hmac
import importlib.util
import os
import secrets
import time
from typing import Protocol
from urllib.parse import urlsplit

from research_kit.store.state import Credentials

__all__ = [
    "COOKIE_LIFETIME_S",
    "TOKEN_LIFETIME_S",
    "PageHost",
    "cookie_name",
    "is_valid_proof",
    "make_proof",
    "page_url",
]

TOKEN_LIFETIME_S = 24 * 3600
COOKIE_LIFETIME_S = 30 * 24 * 3600


class PageHost(Protocol):
    """What is needed to build a link: an address and the secret key."""

    @property
    def base_url(self) -> str:
        """The address of the store."""

    @property
    def secret_key(self) -> str:
        """The secret key of the store."""


def page_url(address: PageHost, path: str, *, root: str | None = None) -> str:
    """Return a link to ``path`` that opens once, in a browser, during the next 24 hours.

    The browser keeps the permission in a cookie for 30 days, so used and older links work there as well.

    Args:
        address: The store.
        path: The page.
        root: Where a browser finds the store; None is its address, or on a JupyterHub the path of a proxy.
    """
    separator = "&" if "?" in path else "?"
    token = make_proof(address.secret_key, purpose="link", lifetime_s=TOKEN_LIFETIME_S)
    found = _root(address.base_url) if root is None else root
    return f"{found}{path}{separator}token={token}"


def cookie_name(credentials: Credentials) -> str:
    """Return the name of the cookie that a valid token is exchanged for."""
    return f"research-kit-{credentials.project_id}"


def _root(base_url: str) -> str:
    """Return where a browser finds the store: on a hub that is not this machine but a path of the hub."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if not prefix or importlib.util.find_spec("jupyter_server_proxy") is None:
        return base_url
    hub = os.environ.get("JUPYTERHUB_PUBLIC_URL", "").rstrip("/")
    path = f"/{prefix.strip('/')}/proxy/{urlsplit(base_url).port}"
    return hub.removesuffix(prefix.rstrip("/")) + path


def make_proof(secret_key: str, *, purpose: str, lifetime_s: int) -> str:
    """Return a text that proves knowledge of ``secret_key`` for ``lifetime_s`` seconds."""
    content = f"{int(time.time()) + lifetime_s}-{secrets.token_hex(8)}"
    return f"{content}.{_sign(secret_key, purpose, content)}"


def is_valid_proof(proof: str, secret_key: str, *, purpose: str) -> bool:
    """Return whether ``proof`` was made with ``secret_key`` for ``purpose`` and has not expired."""
    content, _, signature = proof.partition(".")
    expiry = content.partition("-")[0]
    # str.isdecimal alone would let through digits of other scripts and numbers too long to convert.
    if not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12):
        return False
    expected = _sign(secret_key, purpose, content)
    return hmac.compare_digest(signature.encode(), expected.encode()) and int(expiry) > time.time()


def _sign(secret_key: str, purpose: str, content: str) -> str:
    return hmac.digest(secret_key.encode(), f"research-kit {purpose} {content}".encode(), "sha256").hex()

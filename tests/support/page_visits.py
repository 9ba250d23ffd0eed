"""What a browser does at the store's pages, without a browser.

Names below ``.localhost`` are known to browsers and not to every resolver, so the name travels in the Host
header; the client's cookie jar honours paths as a browser does.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx

from research_kit.store import StoreAddress, opening_link, page_address

PLACE = re.compile(r'content="0;url=([^"]*?/at-[0-9a-f]{32})/')


def opened_browser(store: StoreAddress) -> httpx.Client:
    """Return a browser that knows nothing of the store yet."""
    host = urlsplit(page_address(store, "/")).netloc
    return httpx.Client(base_url=store.base_url, headers={"host": host})


def path_of(link: str) -> str:
    """Return what a browser asks the host of ``link`` for."""
    parts = urlsplit(link)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def visit(browser: httpx.Client, link: str) -> httpx.Response:
    """Follow ``link`` to its host, as far as the first answer."""
    return browser.get(path_of(link))


def enter(browser: httpx.Client, store: StoreAddress) -> str:
    """Let ``browser`` in with a fresh link; return the place of the pages, a path."""
    found = PLACE.search(visit(browser, opening_link(store, "/")).text)
    assert found, "the link did not open"
    return found[1]

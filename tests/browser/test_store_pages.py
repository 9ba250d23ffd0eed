"""The store's pages in a browser: narrowing the list, reading while a session runs, keys."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jupyter_server import JupyterServer
from playwright.async_api import Page, expect

from research_kit.store import StoreAddress, ensure_running, opening_link, page_address, stop_store

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data_dir = tmp_path_factory.mktemp("pages")
    yield ensure_running(data_dir, idle_timeout_s=120)
    stop_store(data_dir)


def send(store: StoreAddress, number: int, *, session: str, **attributes: str) -> None:
    """Send one observation, a trace by itself."""
    start_ns = time.time_ns()
    texts = {"session.id": session, "user.id": "nora", **attributes}
    span: dict[str, Any] = {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "chat",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 1_000_000),
        "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in texts.items()],
    }
    body = {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "langfuse-sdk"}, "spans": [span]}]}]}
    keys = (store.public_key, store.secret_key)
    httpx.post(f"{store.base_url}/api/public/otel/v1/traces", json=body, auth=keys).raise_for_status()


async def test_pages_follow_a_running_session(page: Page, store: StoreAddress) -> None:
    """The list is narrowed with the keyboard, and a replay shows what happens while it is open."""
    violations: list[str] = []
    page.on("console", lambda message: violations.append(message.text) if message.type == "error" else None)
    send(store, 1, session="running", **{"langfuse.observation.input": "first question"})
    send(store, 2, session="other", **{"user.id": "olaf"})
    await page.goto(opening_link(store, "/"))
    await expect(page.get_by_role("link", name="running")).to_be_visible()
    assert "token=" not in page.url

    await page.get_by_label("User").focus()
    await page.keyboard.type("nora")
    await page.get_by_role("button", name="Show").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("link", name="other")).to_have_count(0)
    await expect(page.get_by_label("User")).to_have_value("nora")

    await page.get_by_role("link", name="running").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("first question")).to_be_visible()
    send(store, 3, session="running", **{"langfuse.observation.input": "second question"})
    await expect(page.get_by_text("second question")).to_be_visible(timeout=20_000)
    await expect(page.get_by_role("main").get_by_role("listitem")).to_have_count(2)
    assert violations == []


async def test_live_page_keeps_what_the_reader_opened(page: Page, store: StoreAddress) -> None:
    """An observation that was opened stays open when others arrive."""
    send(store, 11, session="tree", **{"langfuse.observation.input": "the opened one"})
    path = f"/project/{store.project_id}/traces/{11:032x}"
    await page.goto(opening_link(store, path))
    await page.get_by_text("chat", exact=True).last.click()
    await expect(page.get_by_text("the opened one")).to_be_visible()
    send(store, 11, session="tree", **{"langfuse.observation.input": "the opened one", "user.id": "later"})
    await expect(page.locator(".observation")).to_have_count(2, timeout=20_000)
    await expect(page.get_by_text("the opened one").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_fit_a_narrow_window(
    page: Page, store: StoreAddress, scheme: str, tmp_path: Path
) -> None:
    """Nothing is wider than the window, in both color schemes."""
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.set_viewport_size({"width": 400, "height": 800})
    send(store, 21, session="narrow", **{"langfuse.observation.input": "long " * 200})
    await page.goto(opening_link(store, f"/project/{store.project_id}/sessions/narrow"))
    await expect(page.get_by_role("heading", name="Session narrow")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.goto(page_address(store, f"/project/{store.project_id}/sessions"))
    await expect(page.get_by_role("link", name="narrow")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_pages_work_through_the_proxy_of_a_jupyter_server(
    page: Page, store: StoreAddress, jupyter: JupyterServer
) -> None:
    """Below a path of a Jupyter server, links, style and live update work as they do directly."""
    send(store, 31, session="proxied", **{"langfuse.observation.input": "asked through a proxy"})
    port = store.base_url.rpartition(":")[2]
    link = opening_link(store, "/", root=f"{jupyter.base_url}proxy/{port}")
    await page.goto(f"{jupyter.base_url}api/status?token={jupyter.token}")
    await page.goto(link)
    await page.get_by_role("link", name="proxied").click()
    await expect(page.get_by_text("asked through a proxy")).to_be_visible()
    plain = f"{jupyter.base_url}proxy/{port}/project/{store.project_id}/sessions/proxied"
    assert re.sub("/at-[0-9a-f]{32}/", "/", page.url) == plain
    assert await page.evaluate("getComputedStyle(document.querySelector('.turn')).borderRadius") == "10px"
    send(store, 32, session="proxied", **{"langfuse.observation.input": "asked later"})
    await expect(page.get_by_text("asked later")).to_be_visible(timeout=20_000)
    await page.goto(plain)
    await expect(page.get_by_text("asked later")).to_be_visible()


async def test_launcher_opens_the_pages(page: Page, jupyter: JupyterServer) -> None:
    """JupyterLab's launcher has a tile, and it opens the sessions of a store that was not running."""
    await page.goto(f"{jupyter.base_url}lab?token={jupyter.token}")
    tile = page.locator(".jp-LauncherCard").filter(has_text="research-kit sessions")
    async with page.context.expect_page(timeout=60_000) as opened:
        await tile.click(timeout=60_000)
    pages = await opened.value
    await expect(pages.get_by_role("heading", name="Sessions")).to_be_visible(timeout=60_000)
    assert pages.url.startswith(f"{jupyter.base_url}proxy/")
    assert "token=" not in pages.url

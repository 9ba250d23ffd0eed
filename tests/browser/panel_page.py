"""The front end of the chat panel on an empty page, and the messages of `protocol.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Page

WIDGET = Path(__file__).parents[2] / "widgets" / "chat_panel"
FAKE_MODEL = (Path(__file__).parent / "fake_model.js").read_text()
PROTOCOL = json.loads((WIDGET / "protocol.json").read_text())
QUESTION, ANSWER = PROTOCOL["traits"]["transcript"]["messages"]
STATUS = PROTOCOL["traits"]["status"]
RUNNING = {
    **ANSWER,
    "state": "running",
    "text": "",
    "html": "",
    "html_length": 0,
    "tools": [],
    "usage": None,
    "trace_url": None,
}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
FOCUSED_NAME = "() => document.activeElement.ariaLabel ?? document.activeElement.textContent"


class PanelPage:
    """A page with one or more views of one panel."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.panel = page.locator(".rk-chat")
        self.composer = self.panel.get_by_role("textbox", name="Message")
        self.body = page.locator(".rk-assistant .rk-body")
        self.notice = self.panel.get_by_role("status")

    async def open(
        self,
        *,
        transcript: list[dict[str, Any]],
        view_count: int = 1,
        width_px: int = 800,
        notebook: dict[str, Any] | None = None,
        **status: Any,
    ) -> None:
        style = (WIDGET / "index.css").read_text()
        await self.page.set_content(
            f"<!doctype html><style>{style}</style><body style='width: {width_px}px'></body>"
        )
        await self.page.evaluate(f"() => {{ {FAKE_MODEL} }}")
        await self.page.evaluate(
            "(values) => openPanel(...values)",
            [
                (WIDGET / "index.js").read_text(),
                {"transcript": {"revision": 2, "messages": transcript}, "status": {**STATUS, **status}},
                view_count,
                notebook,
            ],
        )

    async def publish(self, **message: Any) -> None:
        await self.page.evaluate("(message) => model.publish(message)", message)

    async def delta(
        self, offset: int, text: str, *, html: Sequence[Any] = (), whole: tuple[int, int] = (0, 0)
    ) -> None:
        start, end = whole
        await self.publish(
            type="delta", message_id="a1", offset=offset, text=text, html=html, html_start=start, html_end=end
        )

    async def set_transcript(self, *messages: dict[str, Any], revision: int = 3) -> None:
        await self.set_trait("transcript", {"revision": revision, "messages": messages})

    async def set_trait(self, name: str, value: Any) -> None:
        await self.page.evaluate("([name, value]) => model.set(name, value)", [name, value])

    async def sent(self, message_type: str) -> list[dict[str, Any]]:
        messages = await self.page.evaluate("() => model.sent")
        return [message for message in messages if message["type"] == message_type]

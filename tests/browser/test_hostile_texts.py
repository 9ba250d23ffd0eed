"""Hostile texts in every place where texts are shown: nothing runs, nothing is loaded, nothing breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from html import escape
from typing import Any

import pytest
import pytest_asyncio
from hostile import ADDRESS, hostile_texts
from markdown_it import MarkdownIt
from panel_page import STATUS, PanelPage
from playwright.async_api import Page, Request

from research_kit.chat.cell_chat import CellAnswer
from research_kit.chat.events import MessageFinished, ToolFinished, ToolStarted, Usage
from research_kit.chat.ui_export import export_transcript
from research_kit.chat.ui_messages import ChatMessage, fold_events, message_to_wire
from research_kit.chat.ui_static import render_static

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]

TEXTS = hostile_texts()
USAGE = Usage(input_tokens=1, output_tokens=1)
# Sets off what can be: the pointer over everything, the focus on everything.
PROVOKE = """async () => {
    for (const node of document.querySelectorAll("main *")) {
        for (const type of ["mouseover", "pointerenter", "focusin", "toggle", "load", "error",
                            "animationstart"])
            node.dispatchEvent(new Event(type));
        if (node.tabIndex >= 0 && !node.matches("a, button, summary")) node.focus();
    }
    document.querySelectorAll("details").forEach((node) => { node.open = true; });
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)));
}"""
SHOW_EACH = """(statuses) => {
    for (const status of statuses) {
        model.set("status", status);
        model.publish({ type: "notice", text: status.session_id });
        for (const node of document.querySelectorAll(".rk-header *")) node.dispatchEvent(new Event("error"));
    }
}"""
BREACHES = """() => [...document.querySelectorAll("main *")].filter((node) =>
    /^(script|iframe|object|embed|form|base|meta|link|style|video|audio|template)$/i.test(node.localName)
    || [...node.attributes].some((attribute) => /^on/i.test(attribute.name))
    || (node.localName === "a" && node.href && !/^(https?|mailto):/.test(node.href))
    || (node.localName === "img" && !node.src.startsWith("data:image/"))
).map((node) => node.outerHTML.slice(0, 200))"""


class Watch:
    """What a page did that it must not do."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.events: list[str] = []
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        page.on("popup", lambda _: self.events.append("popup"))
        page.on("framenavigated", lambda frame: self.events.append(f"navigated to {frame.url}"))

    async def _dialog(self, dialog: Any) -> None:
        self.events.append(f"dialog {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:", "about:")):
            self.events.append(f"request {request.url}")

    async def provoke(self) -> None:
        """Set off what can be, and fail when anything happened."""
        self.events.clear()
        await self.page.evaluate(PROVOKE)
        assert await self.page.evaluate("() => window.hostile") is None
        assert self.events == []
        assert await self.page.evaluate(BREACHES) == []


@pytest_asyncio.fixture(loop_scope="session")
async def watch(page: Page) -> AsyncIterator[Watch]:
    yield Watch(page)


def hostile_transcript() -> list[dict[str, Any]]:
    """Each text as a question, as an answer, and as name, arguments, result and error of a tool."""
    wires = []
    for number, text in enumerate(TEXTS):
        question = ChatMessage(message_id=f"q{number}", role="user", text=text, state="sent")
        call = ToolStarted(call_id=text, name=text, arguments={text: text})
        result = ToolFinished(call_id=text, name=text, result=text, is_error=True, latency_s=0.1)
        end = MessageFinished(answer=text, usage=USAGE, latency_s=1.0, trace_id=text)
        opened = ChatMessage(
            message_id=f"a{number}", role="assistant", state="running", error=text, notice=text
        )
        answer = fold_events(opened, [call, result, end]).answer
        wires += [message_to_wire(question, trace_url=None), message_to_wire(answer, trace_url=text)]
    # What a browser gets has been through JSON.
    return json.loads(json.dumps(wires, ensure_ascii=False).encode("utf-8", "replace"))


def hostile_status(text: str) -> dict[str, Any]:
    return {
        **STATUS,
        "session_id": text,
        "user_id": text,
        "lm_name": text,
        "session_url": text,
        "backend_reason": text,
    }


async def test_panel_withstands_hostile_texts(watch: Watch) -> None:
    """In the live panel, in messages, tools, header, notices and the session picker, all are only text."""
    view = PanelPage(watch.page)
    transcript = hostile_transcript()
    await view.open(transcript=transcript)
    statuses = [hostile_status(text.encode("utf-8", "replace").decode()) for text in TEXTS]
    await view.page.evaluate(SHOW_EACH, statuses)
    await view.page.get_by_role("button", name="Earlier sessions").click()
    sessions = [
        {"session_id": text, "start_time": text, "message_count": 1, "cost": text}
        for text in (text.encode("utf-8", "replace").decode() for text in TEXTS)
    ]
    await view.publish(type="sessions", sessions=[{**s, "start_time": "2026-01-01"} for s in sessions])
    for number in range(0, len(TEXTS), 7):
        thumb = {"value": 0, "comment": sessions[number]["session_id"]}
        await view.publish(type="feedback", message_id=f"a{number}", feedback=thumb)
    await watch.provoke()
    width = "(node) => node.scrollWidth - node.clientWidth"
    assert await view.panel.evaluate(width) == 0
    widest = """(log) => [...log.querySelectorAll("*")].filter((node) =>
        node.getBoundingClientRect().right > log.getBoundingClientRect().right + 1
        && !node.closest("pre, table, .rk-tool-name")).map((node) => node.outerHTML.slice(0, 200))"""
    assert await view.page.get_by_role("log").evaluate(widest) == []
    assert await view.page.get_by_role("log").evaluate(width) == 0
    assert (await view.panel.bounding_box() or {})["width"] <= 800
    assert await view.page.locator(".rk-message").count() == len(transcript)


async def test_kept_forms_withstand_hostile_texts(watch: Watch) -> None:
    """In saved transcripts, cell answers and the exported page, all are only text."""
    transcript = hostile_transcript()
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    parts = [render_static(transcript, hostile_status(text)) for text in texts[:1]]
    parts += [render_static([], hostile_status(text)) for text in texts]
    for text in texts:
        event = MessageFinished(answer=text, usage=USAGE, latency_s=1.0, trace_id=text)
        parts.append(CellAnswer(event, text)._repr_html_())
    body = "".join(parts)
    await watch.page.set_content(f"<!doctype html><main>{body}<p id=end>whole</p></main>")
    await watch.provoke()
    assert await watch.page.locator("main > #end").inner_text() == "whole"
    for text in texts[::10]:
        exported = export_transcript(transcript[:2], hostile_status(text), "html")
        assert set(exported.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert escape(text)[:20] in exported.text
    page = export_transcript(transcript, hostile_status("s"), "html").text
    await watch.page.set_content(page.replace("<body>", "<body><main>", 1).replace("</body>", "</main>"))
    await watch.provoke()


async def test_markdown_for_other_readers_withstands_hostile_texts(watch: Watch) -> None:
    """What cells and exports give as Markdown is harmless where HTML passes and no link is refused."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    reader.validateLink = bool  # type: ignore[method-assign]
    event = MessageFinished(answer="x", usage=USAGE, latency_s=1.0, trace_id="t")
    parts = [CellAnswer(replace(event, answer=text), text)._repr_markdown_() for text in TEXTS]
    parts.append(export_transcript(hostile_transcript(), hostile_status(TEXTS[0]), "markdown").text)
    body = "".join(f"<section>{reader.render(part)}</section>" for part in parts)
    await watch.page.set_content(f"<!doctype html><main>{body}<p id=end>whole</p></main>")
    await watch.provoke()
    assert await watch.page.locator("main > #end").inner_text() == "whole"


async def test_corpus_is_large() -> None:
    """The corpus is what it says: many different texts, with code and addresses in them."""
    assert len(set(TEXTS)) == len(TEXTS) >= 150
    assert sum(ADDRESS in text for text in TEXTS) >= 40

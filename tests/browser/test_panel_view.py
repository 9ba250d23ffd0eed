"""The front end of the chat panel on an empty page, with the messages of `protocol.json`."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("browser"),
]

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

    async def delta(self, offset: int, text: str, *, html: str = "", whole: tuple[int, int] = (0, 0)) -> None:
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


@pytest_asyncio.fixture(loop_scope="session")
async def view(page: Page) -> PanelPage:
    return PanelPage(page)


async def test_view_shows_the_protocol_example(view: PanelPage) -> None:
    """Header, question, tool, answer, figures and links of the example are on the page."""
    await view.open(transcript=[QUESTION, ANSWER])
    header = view.page.locator(".rk-header")
    await expect(header).to_contain_text(STATUS["session_id"])
    await expect(header).to_contain_text("openai/gpt-4o-mini")
    await expect(header).to_contain_text("local")
    await expect(header).to_contain_text("ada")
    await expect(header.locator(".rk-value-messages")).to_have_text("1")
    await expect(header.locator(".rk-value-cost")).to_have_text("$0.0003")
    await expect(header.get_by_role("link", name="Open session")).to_have_attribute(
        "href", STATUS["session_url"]
    )
    await expect(view.page.locator(".rk-message.rk-user")).to_have_text(QUESTION["text"])
    await expect(view.body.locator("strong")).to_have_text("344")
    await expect(view.page.locator(".rk-facts").last).to_contain_text("1,312 in · 48 out$0.00031.2 s")
    trace = view.page.get_by_role("link", name="Trace")
    await expect(trace).to_have_attribute("href", ANSWER["trace_url"])
    await expect(trace).to_have_attribute("rel", "noopener noreferrer")
    await expect(header.get_by_role("meter")).to_have_attribute("aria-valuetext", STATUS["budget"]["text"])
    tool = view.page.locator(".rk-tool")
    await expect(tool.get_by_text("DataFrame, 344 rows")).to_be_hidden()
    await tool.locator("summary").click()
    await expect(tool.get_by_text("DataFrame, 344 rows")).to_be_visible()
    await expect(view.page.get_by_role("log")).to_have_attribute("aria-live", "polite")


async def test_view_says_hello_and_sends_as_the_protocol_says(view: PanelPage) -> None:
    """Each message of the view has the fields of its example."""
    await view.open(transcript=[])
    await view.composer.fill("hi")
    await view.composer.press("Enter")
    [hello], [send] = await view.sent("hello"), await view.sent("send")
    assert hello == PROTOCOL["to_kernel"]["hello"]
    assert send.keys() == PROTOCOL["to_kernel"]["send"].keys()
    await view.publish(type="accepted", request_id=send["request_id"])
    await view.set_trait("status", {**STATUS, "is_busy": True})
    await view.set_transcript(QUESTION, RUNNING)
    await view.panel.get_by_role("button", name="Stop").click()
    assert await view.sent("stop") == [PROTOCOL["to_kernel"]["stop"]]


async def test_view_streams_text_as_text_until_the_answer_is_whole(view: PanelPage) -> None:
    """Deltas are shown as they are; the sanitised HTML of the trait takes their place."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    first = "<b>The</b> \U0001f427 frame "
    await view.delta(0, first)
    await view.delta(len(first), "has **344** rows.")
    await expect(view.body).to_have_text("<b>The</b> \U0001f427 frame has **344** rows.")
    await view.publish(type="message", message=ANSWER, keep_text=0, keep_html=0, revision=3)
    await expect(view.body).to_have_text("The frame has 344 rows.")
    await view.delta(0, "too late")
    await expect(view.body).to_have_text("The frame has 344 rows.")


async def test_view_shows_blocks_when_they_are_whole(view: PanelPage) -> None:
    """Whole blocks are shown as HTML while the rest is written, and at the end only the rest is needed."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    block = "One \U0001f427 *a*.\n\n"
    await view.delta(0, block + "Two", html="<p>One \U0001f427 <em>a</em>.</p>\n", whole=(0, len(block)))
    await expect(view.body.locator("em")).to_have_text("a")
    await expect(view.body.locator(".rk-tail")).to_have_text("Two")
    await view.delta(len(block) + 3, " **b**", whole=(len(block), len(block)))
    await expect(view.body.locator(".rk-tail")).to_have_text("Two **b**")
    text = f"{block}Two **b**"
    last = {**ANSWER, "text": "", "html": "<p>Two <strong>b</strong></p>", "html_length": len(text)}
    await view.publish(type="message", message=last, keep_text=len(text), keep_html=len(block), revision=3)
    await expect(view.body.locator("strong")).to_have_text("b")
    await expect(view.body).to_have_text("One \U0001f427 a. Two b")
    assert await view.sent("resync") == []


async def test_view_counts_changes(view: PanelPage) -> None:
    """A change that comes twice is made once; one that is missing makes the view ask for everything."""
    await view.open(transcript=[QUESTION, ANSWER])
    assert await view.sent("hello") == [PROTOCOL["to_kernel"]["hello"]]
    for _ in range(2):
        await view.publish(type="cut", message_count=1, revision=3)
    await expect(view.page.locator(".rk-message")).to_have_count(1)
    await view.publish(type="cut", message_count=0, revision=5)
    await expect(view.page.locator(".rk-message")).to_have_count(1)
    assert await view.sent("resync") == [PROTOCOL["to_kernel"]["resync"]]
    await view.set_transcript(revision=5)
    await expect(view.page.locator(".rk-message")).to_have_count(0)
    await expect(view.page.get_by_text("Ask about this notebook")).to_be_visible()


async def test_view_asks_once_for_what_it_missed(view: PanelPage) -> None:
    """After a lost delta the view asks for the transcript, and goes on from it."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    await view.delta(0, "The ")
    await view.delta(10, "lost ")
    await view.delta(15, "more ")
    await expect(view.body).to_have_text("The ")
    assert await view.sent("resync") == [PROTOCOL["to_kernel"]["resync"]]
    await view.set_transcript(QUESTION, {**RUNNING, "text": "The frame was lost more "})
    await view.delta(24, "once")
    await expect(view.body).to_have_text("The frame was lost more once")
    await view.delta(4, "end")
    await expect(view.body).to_have_text("The end")


async def test_view_shows_a_tool_while_it_runs(view: PanelPage) -> None:
    """A tool message appears in its answer and changes in place."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    message = deepcopy(PROTOCOL["to_browser"]["tool"])
    await view.publish(**message)
    await expect(view.page.locator(".rk-tool")).to_have_attribute("data-state", "running")
    message["tool"] |= {"result": "no such variable", "is_error": True}
    await view.publish(**message)
    await expect(view.page.locator(".rk-tool")).to_have_count(1)
    await expect(view.page.locator(".rk-tool")).to_have_attribute("data-state", "failed")


async def test_view_keeps_the_text_until_the_kernel_takes_it(view: PanelPage) -> None:
    """A refused message stays in the composer with the reason; an accepted one leaves it."""
    await view.open(transcript=[])
    await view.composer.fill("my words")
    await view.composer.press("Enter")
    [send] = await view.sent("send")
    await expect(view.composer).to_have_value("my words")
    await view.publish(type="refused", request_id="of another view", reason="not mine")
    await expect(view.notice).to_be_hidden()
    await view.publish(type="refused", request_id=send["request_id"], reason="Busy, <b>wait</b>.")
    await expect(view.notice).to_have_text("Busy, <b>wait</b>.")
    await expect(view.composer).to_have_value("my words")
    await view.composer.press("Enter")
    [_, again] = await view.sent("send")
    await view.publish(type="accepted", request_id=again["request_id"])
    await expect(view.composer).to_have_value("")
    await expect(view.composer).to_be_focused()


async def test_view_says_that_its_kernel_is_gone(view: PanelPage) -> None:
    """After a restart of the kernel the typed text stays, and the reader learns what to do."""
    await view.open(transcript=[])
    await view.page.evaluate("() => { model.isGone = true; }")
    await view.composer.fill("my words")
    await view.composer.press("Enter")
    await expect(view.notice).to_contain_text("kernel of this panel is gone. Run its cell again")
    await expect(view.composer).to_have_value("my words")
    await expect(view.composer).to_be_editable()


async def test_view_sends_nothing_empty_or_composed(view: PanelPage) -> None:
    """Blank text and Enter of an input method send nothing; during an answer the text is sent to wait."""
    await view.open(transcript=[])
    await view.composer.fill("  \n ")
    await view.composer.press("Enter")
    await view.composer.fill("words")
    await view.composer.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert await view.sent("send") == []
    await view.set_trait("status", {**STATUS, "is_busy": True})
    await view.composer.press("Enter")
    [send] = await view.sent("send")
    assert send["text"] == "words"


async def test_view_keeps_keys_to_itself(view: PanelPage) -> None:
    """No key that is pressed in the panel reaches the page around it."""
    await view.open(transcript=[])
    await view.page.evaluate("() => { window.keys = []; document.onkeydown = (e) => keys.push(e.key); }")
    await view.composer.press("Shift+Enter")
    await view.composer.press("Control+Shift+C")
    await view.composer.press("Escape")
    assert await view.page.evaluate("() => keys") == []
    await expect(view.panel).to_have_attribute("data-lm-suppress-shortcuts", "true")


async def test_views_of_one_panel_agree(view: PanelPage) -> None:
    """Two views show the same text; only the one that sent clears its composer."""
    await view.open(transcript=[QUESTION, RUNNING], view_count=2)
    await view.delta(0, "The frame")
    await expect(view.body).to_have_text(["The frame", "The frame"])
    await view.composer.nth(0).fill("left")
    await view.composer.nth(1).fill("right")
    await view.composer.nth(0).press("Enter")
    [send] = await view.sent("send")
    await view.publish(type="accepted", request_id=send["request_id"])
    await expect(view.composer.nth(0)).to_have_value("")
    await expect(view.composer.nth(1)).to_have_value("right")


async def test_view_follows_only_a_reader_at_the_end(view: PanelPage) -> None:
    """New text scrolls the transcript when its end is in sight, and never takes the reader away from it."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    log = view.page.get_by_role("log")
    at_end = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    lines = "line\n" * 100
    await view.delta(0, lines)
    assert await log.evaluate(at_end)
    await log.evaluate("(log) => { log.scrollTop = 100; }")
    await view.delta(len(lines), lines)
    assert await log.evaluate("(log) => log.scrollTop") == 100
    await view.page.get_by_role("button", name="Go to the latest message").click()
    assert await log.evaluate(at_end)


async def test_view_shows_the_end_when_it_becomes_visible(view: PanelPage) -> None:
    """A panel that is built in a hidden tab shows its end, and one whose tab is left keeps its place."""
    answers = [{**ANSWER, "message_id": f"a{n}", "html": "<p>line</p>" * 40} for n in range(5)]
    await view.open(transcript=answers)
    log = view.page.get_by_role("log")
    at_end = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    show = "(display) => { document.body.style.display = display; }"
    await view.page.evaluate(show, "none")
    await view.publish(
        type="message", message={**ANSWER, "message_id": "a9"}, revision=3, keep_text=0, keep_html=0
    )
    await view.page.evaluate(show, "block")
    await view.page.wait_for_function(f"() => ({at_end})(document.querySelector('.rk-log'))")
    await log.evaluate("(log) => { log.scrollTop = 100; }")
    await view.page.evaluate(show, "none")
    await view.page.evaluate(show, "block")
    await view.page.wait_for_function("() => document.querySelector('.rk-log').scrollTop === 100")


async def test_view_makes_a_cell_of_code(view: PanelPage) -> None:
    """Python goes into new cells below the panel, in the order of the clicks; other code does not."""
    html = "".join(
        f'<pre><code class="{name}">{code}\n</code></pre>'
        for name, code in (("language-python", "first"), ("", "second"), ("language-sql", "third"))
    )
    notebook = {"sources": ["rk.chat()", "after"], "readOnly": False}
    await view.open(transcript=[QUESTION, {**ANSWER, "html": html}], notebook=notebook)
    insert = view.page.get_by_role("button", name="Insert into a new cell")
    await expect(insert).to_have_count(2)
    await insert.nth(0).click()
    await insert.click()
    sources = "() => model.widget_manager.cells.map((cell) => cell.source)"
    assert await view.page.evaluate(sources) == ["rk.chat()", "first", "second", "after"]


@pytest.mark.parametrize("notebook", [None, {"sources": [], "readOnly": True}], ids=["hidden", "read-only"])
async def test_view_offers_no_cell_where_none_can_be_made(
    view: PanelPage, notebook: dict[str, Any] | None
) -> None:
    """Where the front end gives no notebook away, or none that can be changed, the button is not there."""
    await view.open(transcript=[{**ANSWER, "html": "<pre><code>x</code></pre>"}], notebook=notebook)
    await expect(view.page.get_by_role("button", name="Copy the code")).to_have_count(1)
    await expect(view.page.get_by_role("button", name="Insert into a new cell")).to_have_count(0)


async def test_view_says_why_traces_wait(view: PanelPage) -> None:
    """The reason of the backend's state is on the panel; a look at the panel asks for what is new."""
    await view.open(transcript=[], backend_state="buffering", backend_reason="No answer from <b>.")
    await expect(view.page.locator(".rk-header")).to_contain_text("traces wait on disk. No answer from <b>.")
    await view.page.evaluate("() => { Date.now = () => 1e15; }")
    await view.panel.hover()
    assert await view.sent("refresh") == [PROTOCOL["to_kernel"]["refresh"]]
    await view.set_trait("status", STATUS)
    await expect(view.page.get_by_text("No answer from")).to_be_hidden()


async def test_view_copies_the_answer_as_written(view: PanelPage) -> None:
    """Copy gives the Markdown of the answer, and the session id as it is."""
    await view.page.route(
        "https://panel.test/", lambda route: route.fulfill(body="", content_type="text/html")
    )
    await view.page.goto("https://panel.test/")
    await view.open(transcript=[QUESTION, ANSWER])
    await view.page.get_by_role("button", name="Copy the answer").click()
    assert await view.page.evaluate("() => navigator.clipboard.readText()") == ANSWER["text"]
    await view.page.get_by_role("button", name="Copy the session id").click()
    assert await view.page.evaluate("() => navigator.clipboard.readText()") == STATUS["session_id"]


async def test_view_shows_what_is_not_known(view: PanelPage) -> None:
    """Without session, user, model and cost the panel says so, and shows no dead links."""
    texts = {**STATUS["texts"], "cost": "–", "cost_note": "2 calls have no known price."}  # noqa: RUF001
    status = {"session_id": None, "user_id": None, "lm_name": None, "session_url": None, "texts": texts}
    await view.open(transcript=[], **status, backend_state="disabled", budget=None)
    await expect(view.page.locator(".rk-session")).to_have_text("no session")
    await expect(view.page.locator(".rk-value-cost")).to_have_attribute(
        "title", "2 calls have no known price."
    )
    await expect(view.page.get_by_role("link")).to_have_count(0)
    await expect(view.page.get_by_role("meter")).to_have_count(0)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "/relative"])
async def test_view_links_only_to_web_addresses(view: PanelPage, url: str) -> None:
    """An address that is not http or https becomes no link."""
    await view.open(transcript=[QUESTION, {**ANSWER, "trace_url": url}], session_url=url)
    await expect(view.page.get_by_role("link")).to_have_count(0)


async def test_view_fits_a_narrow_page(view: PanelPage) -> None:
    """Nothing sticks out of a panel that is 300 pixels wide."""
    await view.open(transcript=[{**QUESTION, "text": "W" * 300}, ANSWER], width_px=300)
    overflow = "(panel) => panel.scrollWidth - panel.clientWidth"
    assert await view.panel.evaluate(overflow) == 0
    assert await view.page.get_by_role("log").evaluate(overflow) == 0


async def test_view_asks_for_an_approval(view: PanelPage) -> None:
    """A tool that asks shows what it would do and three answers; afterwards they are gone."""
    tool = {**ANSWER["tools"][0], "result": None, "is_asking": True}
    await view.open(transcript=[QUESTION, {**RUNNING, "tools": [tool]}], is_busy=True)
    group = view.page.get_by_role("group", name="Approval")
    await expect(view.page.locator(".rk-tool-text").first).to_contain_text("penguins")
    for name in ("Deny", "Allow for session", "Allow once"):
        await group.get_by_role("button", name=name).click()
    assert [sent["decision"] for sent in await view.sent("decide")] == ["deny", "session", "once"]
    assert (await view.sent("decide"))[-1] == PROTOCOL["to_kernel"]["decide"]
    await view.publish(type="tool", message_id="a1", tool={**tool, "is_asking": False})
    await expect(group).to_be_hidden()


async def test_view_shows_progress_pictures_and_changes(view: PanelPage) -> None:
    """A running tool says how far it is, a picture is shown without a click, a changed tool says so."""
    tool = {**ANSWER["tools"][0], "result": None, "progress": "40% · reading"}
    await view.open(transcript=[QUESTION, {**RUNNING, "tools": [tool]}], is_busy=True)
    await expect(view.page.locator(".rk-tool-latency")).to_have_text("40% · reading")
    asking = {**tool, "is_asking": True, "is_changed": True}
    await view.publish(type="tool", message_id="a1", tool=asking)
    await expect(view.page.get_by_role("group", name="Approval")).to_contain_text("has changed since")
    images = [
        f"data:image/png;base64,{PIXEL}",
        "http://127.0.0.1:9/spy.png",
        "data:image/svg+xml;base64,AAAA",
    ]
    await view.publish(type="tool", message_id="a1", tool={**tool, "result": "drawn", "images": images})
    await expect(view.page.get_by_alt_text("Picture by describe_variable")).to_have_count(1)
    await expect(view.page.get_by_alt_text("Picture by describe_variable")).to_be_visible()


async def test_view_rates_retries_edits_and_exports(view: PanelPage) -> None:
    """Thumbs with a comment, Try again, Edit, Export and the session picker send what the protocol says."""
    await view.open(transcript=[QUESTION, ANSWER])
    up = view.page.get_by_role("button", name="Helpful", exact=True)
    await up.click()
    assert await view.sent("feedback") == [PROTOCOL["to_kernel"]["feedback"]]
    await view.publish(type="feedback", message_id="a1", feedback={"value": 1, "comment": ""})
    await expect(up).to_have_attribute("aria-pressed", "true")
    comment = view.page.get_by_role("textbox", name="Comment on this answer")
    await comment.fill("<b>to the point</b>")
    await comment.press("Enter")
    await view.publish(
        type="feedback", message_id="a1", feedback={"value": 1, "comment": "<b>to the point</b>"}
    )
    saved = view.page.get_by_role("button", name="“<b>to the point</b>”")
    await saved.click()
    await expect(comment).to_have_value("<b>to the point</b>")
    await expect(comment).to_be_focused()
    await up.click()
    values = [(sent["value"], sent["comment"]) for sent in await view.sent("feedback")]
    assert values == [(1, ""), (1, "<b>to the point</b>"), (None, "")]

    await view.page.get_by_role("button", name="Try again").click()
    question = view.page.locator(".rk-message.rk-user")
    await question.get_by_role("button", name="Edit and send again").click()
    editor = view.page.get_by_role("textbox", name="Edit the message")
    await expect(editor).to_be_focused()
    await editor.fill("How many columns?")
    await editor.press("Enter")
    retry, edit = await view.sent("resend")
    assert retry.keys() == PROTOCOL["to_kernel"]["resend"].keys()
    assert (retry["message_id"], retry["text"]) == ("a1", QUESTION["text"])
    assert (edit["message_id"], edit["text"]) == ("q1", "How many columns?")
    await view.publish(type="accepted", request_id=edit["request_id"])
    await expect(editor).to_have_count(0)

    await view.page.get_by_role("button", name="Export").click()
    await view.page.get_by_role("button", name="Markdown").click()
    assert await view.sent("export") == [PROTOCOL["to_kernel"]["export"]]
    async with view.page.expect_download() as download:
        await view.publish(**PROTOCOL["to_browser"]["file"])
    assert (await download.value).suggested_filename == "chat-s1.md"
    await view.page.get_by_role("button", name="Earlier sessions").click()
    assert await view.sent("list_sessions") == [PROTOCOL["to_kernel"]["list_sessions"]]
    await view.publish(**PROTOCOL["to_browser"]["sessions"])
    await view.page.get_by_role("button", name="jupyter-1").click()
    await view.page.get_by_role("button", name="New session").click()
    assert [sent["session_id"] for sent in await view.sent("open_session")] == ["jupyter-1", None]


async def test_view_opens_the_stores_pages_with_a_fresh_link(view: PanelPage) -> None:
    """A click asks the kernel for the link with the proof; the address in the page has none."""
    await view.page.context.route(
        "http://127.0.0.1:4318/**", lambda route: route.fulfill(body="page", content_type="text/html")
    )
    await view.open(transcript=[QUESTION, ANSWER])
    async with view.page.expect_popup() as popup:
        await view.page.get_by_role("link", name="Open session").click()
    page = await popup.value
    [sent] = await view.sent("open")
    assert sent.keys() == PROTOCOL["to_kernel"]["open"].keys()
    url = PROTOCOL["to_browser"]["link"]["url"]
    await view.publish(type="link", request_id=sent["request_id"], url=url)
    await page.wait_for_url(url)


async def test_view_shows_the_budget(view: PanelPage) -> None:
    """The bar says how much is used, to eyes and to screen readers."""
    await view.open(transcript=[], budget={"used_part": 0.83, "level": "warning", "text": "83 of 100 tokens"})
    meter = view.page.get_by_role("meter", name="Budget used")
    await expect(meter).to_have_attribute("aria-valuenow", "83")
    await expect(view.page.get_by_text("Budget: 83 of 100 tokens")).to_be_visible()


@pytest.mark.parametrize(("scheme", "contrast"), [("light", "no-preference"), ("dark", "more")])
async def test_view_is_accessible(view: PanelPage, scheme: str, contrast: str) -> None:
    """axe finds nothing to complain about, and the Tab key reaches every control."""
    asking = {**ANSWER["tools"][0], "call_id": "c2", "result": None, "is_asking": True}
    code = (
        '<p>x</p><pre><code><span class="rk-hl-s2">"a"</span> <span class="rk-hl-c1"># b</span></code></pre>'
    )
    answer = {**ANSWER, "html": code, "html_length": 5, "feedback": {"value": 1, "comment": ""}}
    running = {**RUNNING, "message_id": "a2", "tools": [asking]}
    failed = {
        **ANSWER,
        "message_id": "a3",
        "state": "failed",
        "error": "No key. Set one.",
        "notice": "Nearly.",
    }
    await view.page.emulate_media(color_scheme=scheme, contrast=contrast)
    budget = {"used_part": 1.0, "level": "spent", "text": "all"}
    await view.open(transcript=[QUESTION, answer, failed, running], budget=budget, is_busy=True)
    await view.page.get_by_role("button", name="Export").click()
    await view.page.evaluate("() => { document.documentElement.lang = 'en'; document.title = 'Chat'; }")
    found = await Axe().run(view.page, context=".rk-chat")
    assert [(rule["id"], rule["nodes"][0]["target"]) for rule in found.response["violations"]] == []
    await view.page.locator("body").focus()
    reached: set[str] = set()
    for _ in range(60):
        await view.page.keyboard.press("Tab")
        reached.add(await view.page.evaluate(FOCUSED_NAME))
    controls = {
        "Open session",
        "New session",
        "Export",
        "Markdown",
        "Conversation",
        "Copy the code",
        "Message",
    }
    assert controls | {"Allow once", "Deny", "Helpful", "Try again", "Edit and send again", "Stop"} <= reached


async def test_view_leaves_nothing_behind(view: PanelPage) -> None:
    """A view that is closed removes its elements and listens no more."""
    await view.open(transcript=[], view_count=2)
    await view.page.evaluate("() => closeViews[0]()")
    await expect(view.panel).to_have_count(1)
    counts = await view.page.evaluate("() => [...model.listeners.values()].map((list) => list.length)")
    assert counts == [1, 1, 1]

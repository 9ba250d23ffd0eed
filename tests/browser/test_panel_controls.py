"""What one can do in the chat panel, with a mouse, a keyboard or a screen reader."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from panel_page import ANSWER, FOCUSED_NAME, PIXEL, PROTOCOL, QUESTION, RUNNING, STATUS, PanelPage
from playwright.async_api import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]


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


async def test_view_asks_whether_tool_servers_are_trusted(view: PanelPage) -> None:
    """The card shows in words what would be started; a click names the content that was shown."""
    question = PROTOCOL["questions"]["trust"]
    hostile = {
        "name": "<img src=x onerror=window.hostile=1>",
        "deed": "starts <b>x</b>",
        "details": ["<i>y</i>"],
    }
    shown = {**question, "servers": [*question["servers"], hostile]}
    await view.open(transcript=[QUESTION, ANSWER], trust=shown)
    card = view.page.get_by_role("group", name="Trust these tool servers?")
    for text in (
        question["path"],
        "units starts uvx some-unit-server",
        "UNITS_KEY",
        hostile["name"],
        "<b>x</b>",
    ):
        await expect(card).to_contain_text(text)
    assert await view.page.evaluate("window.hostile") is None
    for name in ("Not now", "Trust"):
        await card.get_by_role("button", name=name, exact=True).click()
    sent = await view.sent("trust")
    assert [message["decision"] for message in sent] == ["later", "trust"]
    assert sent[-1] == PROTOCOL["to_kernel"]["trust"]
    await view.set_trait("status", {**STATUS, "trust": None})
    await expect(card).to_be_hidden()
    long = {
        **question,
        "question_id": "other",
        "servers": [],
        "is_whole": False,
        "notes": ["research-kit trust x"],
    }
    await view.set_trait("status", {**STATUS, "trust": long})
    await expect(card).to_contain_text("research-kit trust x")
    await expect(card.get_by_role("button", name="Trust", exact=True)).to_be_hidden()
    await expect(card.get_by_role("button", name="Not now")).to_be_visible()


async def test_view_says_whose_words_describe_a_tool(view: PanelPage) -> None:
    """A question about a tool quotes its server, as text."""
    tool = {
        **ANSWER["tools"][0],
        "result": None,
        "is_asking": True,
        "origin": "The server s says: “<b>safe</b>”",
    }
    await view.open(transcript=[QUESTION, {**RUNNING, "tools": [tool]}], is_busy=True)
    await expect(view.page.get_by_role("group", name="Approval")).to_contain_text("says: “<b>safe</b>”")


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
    await view.page.get_by_role("button", name="How many rows?").click()
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

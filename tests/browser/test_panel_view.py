"""What the chat panel shows, on an empty page with the messages of `protocol.json`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from panel_page import ANSWER, PROTOCOL, QUESTION, RUNNING, STATUS, PanelPage
from playwright.async_api import expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_view_shows_the_protocol_example(view: PanelPage) -> None:
    """Header, question, tool, answer, figures and links of the example are on the page."""
    await view.open(transcript=[QUESTION, ANSWER])
    header = view.page.locator(".rk-header")
    await expect(header).to_contain_text(STATUS["session_id"])
    await expect(header).to_contain_text("openai/gpt-4o-mini")
    await expect(header).to_contain_text("local")
    await expect(header).to_contain_text("ada")
    await expect(header.locator(".rk-value-messages")).to_have_text("1")
    await expect(header.locator(".rk-value-cost")).to_have_text("$0.00034")
    await expect(header.get_by_role("link", name="Open session")).to_have_attribute(
        "href", STATUS["session_url"]
    )
    await expect(view.page.locator(".rk-message.rk-user")).to_have_text(QUESTION["text"])
    await expect(view.body.locator("strong")).to_have_text("344")
    await expect(view.page.locator(".rk-facts").last).to_contain_text("1,312 in · 48 out$0.000341.20 s")
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
    message = {**ANSWER, "html": [ANSWER["html"]]}
    await view.publish(type="message", message=message, keep_text=0, keep_html=0, revision=3)
    await expect(view.body).to_have_text("The frame has 344 rows.")
    await view.delta(0, "too late")
    await expect(view.body).to_have_text("The frame has 344 rows.")


async def test_view_shows_blocks_when_they_are_whole(view: PanelPage) -> None:
    """Whole blocks are shown as HTML while the rest is written, and at the end only the rest is needed."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    block = "One \U0001f427 *a*.\n\n"
    await view.delta(0, block + "Two", html=["<p>One \U0001f427 <em>a</em>.</p>\n"], whole=(0, len(block)))
    await expect(view.body.locator("em")).to_have_text("a")
    await expect(view.body.locator(".rk-tail")).to_have_text("Two")
    await view.delta(len(block) + 3, " **b**", whole=(len(block), len(block)))
    await expect(view.body.locator(".rk-tail")).to_have_text("Two **b**")
    text = f"{block}Two **b**"
    last = {**ANSWER, "text": "", "html": ["<p>Two <strong>b</strong></p>"], "html_length": len(text)}
    await view.publish(type="message", message=last, keep_text=len(text), keep_html=len(block), revision=3)
    await expect(view.body.locator("strong")).to_have_text("b")
    await expect(view.body).to_have_text("One \U0001f427 a. Two b")
    assert await view.sent("resync") == []


async def test_view_takes_no_markup_from_the_text(view: PanelPage) -> None:
    """What HTML names of the text is text, also when the text is another one than the kernel meant."""
    await view.open(transcript=[QUESTION, RUNNING], is_busy=True)
    text = '\U0001f427 <img src="x" onerror="window.hit = 1"> & more\n\nlast'
    parts = ["<p>", [0, len(text) - 6], "</p>\n"]
    await view.delta(0, text, html=parts, whole=(0, len(text) - 4))
    await expect(view.body.locator("p")).to_have_text("\U0001f427 img src=x onerror=window.hit = 1  more")
    await expect(view.body.locator("img")).to_have_count(0)
    message = {**ANSWER, "text": "", "html": parts, "html_length": len(text)}
    await view.publish(type="message", message=message, keep_text=len(text), keep_html=0, revision=3)
    await expect(view.body.locator("p")).to_have_text("\U0001f427 img src=x onerror=window.hit = 1  more")
    assert await view.page.evaluate("window.hit") is None


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


async def test_view_says_that_the_kernel_is_late(view: PanelPage) -> None:
    """Who waits is told why that may be; when the kernel has answered, the word is gone."""
    await view.page.clock.install()
    await view.open(transcript=[])
    await view.composer.fill("Hello")
    await view.composer.press("Enter")
    (send,) = await view.sent("send")
    await view.page.clock.fast_forward(10_000)
    await expect(view.notice).to_contain_text("If a cell is running, it may answer after it")
    await view.publish(type="accepted", request_id=send["request_id"])
    await expect(view.notice).to_be_hidden()
    await expect(view.composer).to_have_value("")


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
    # What a reader does is drawn before they do the next thing: what changes within a frame is never seen.
    drawn = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
    show = f"(display) => {{ document.body.style.display = display; return {drawn}; }}"
    scroll = f"(log) => {{ log.scrollTop = 100; return {drawn}; }}"
    await view.page.evaluate(show, "none")
    await view.publish(
        type="message",
        message={**ANSWER, "message_id": "a9", "html": []},
        revision=3,
        keep_text=0,
        keep_html=0,
    )
    await view.page.evaluate(show, "block")
    await view.page.wait_for_function(f"() => ({at_end})(document.querySelector('.rk-log'))")
    await log.evaluate(scroll)
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


@pytest.mark.parametrize(
    "notebook",
    [None, {"sources": [], "readOnly": True}, {"sources": [], "readOnly": False, "path": None}],
    ids=["hidden", "read-only", "stands for another"],
)
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
    await expect(view.page.locator(".rk-header")).to_contain_text(
        "traces wait on disk. Reason: No answer from <b>."
    )
    await view.page.evaluate("() => { Date.now = () => 1e15; }")
    await view.panel.hover()
    assert await view.sent("refresh") == [PROTOCOL["to_kernel"]["refresh"]]
    await view.set_trait("status", STATUS)
    await expect(view.page.get_by_text("No answer from")).to_be_hidden()

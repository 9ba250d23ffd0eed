"""The chat panel in real JupyterLab and Notebook 7, answered by the real engine over a scripted model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from notebook_page import OPEN_CHAT, NotebookPage
from playwright.async_api import expect
from scripted_lm import Reply, ScriptedLM, adapter_reply

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]

# DSPy holds back the last tokens of a stream until it knows that the field goes on, so the part before the
# pause is longer than what the tests look for.
BEFORE_PAUSE = (
    "The **most** common answer begins with a sentence that is long enough to be shown while the rest of it "
    "is still on its way from the model to the reader "
)

PRACTICE = Path(__file__).parents[1] / "agent" / "stdio_server.py"

# A chat with a tool that says nothing of itself, so that it asks before it runs.
OPEN_CHAT_WITH_TOOL = """%load_ext research_kit
import research_kit as rk
from mcp.server.mcpserver import MCPServer
from research_kit.agent import ToolServer

lab, written = MCPServer("lab"), []

@lab.tool()
def keep(text: str) -> str:
    written.append(text)
    return f"kept {text}"

# The kernel has another front end's story behind it, which ended with a session that was opened again.
rk.new_session()
rk.chat(tools=[ToolServer("lab", lab)])"""

# A chat in the folder of a project that nobody has trusted yet.
OPEN_CHAT_IN_CLONE = f"""%load_ext research_kit
import json, os, sys
import research_kit as rk
from pathlib import Path

Path("clone").mkdir()
practice = {{"command": sys.executable, "args": [{str(PRACTICE)!r}]}}
Path("clone/mcp.json").write_text(json.dumps({{"mcpServers": {{"practice": practice}}}}))
os.chdir("clone")
rk.new_session()
rk.chat()"""

both_front_ends = pytest.mark.parametrize("front_end", ["lab", "notebook"])


def decision() -> Reply:
    """The assistant's step in which it decides that no tool is needed."""
    return adapter_reply(next_thought="I know this.", next_tool_name="finish", next_tool_args="{}")


def tool_call(name: str, arguments: str) -> Reply:
    """The assistant's step in which it calls a tool of the notebook."""
    return adapter_reply(next_thought="I look.", next_tool_name=name, next_tool_args=arguments)


def answer(text: str, *, pause_before: str | None = None) -> Reply:
    """The assistant's step in which it answers."""
    return adapter_reply(pause_before=pause_before, reasoning="I know this.", answer=text)


@both_front_ends
async def test_links_of_the_panel_open_the_pages(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """A click has the kernel make a link for once; the saved address opens in the same browser later."""
    await notebook.open(f"links-{front_end}.ipynb", OPEN_CHAT)
    await notebook.open_chat()
    scripted_lm.script(decision(), answer("What the page shows as well."))
    await notebook.ask(f"What is on the page of {front_end}?")
    await notebook.expect_state(notebook.answers.nth(0), "finished")
    for name, part in {"Open session": ".turn", "Trace": ".observation"}.items():
        link = notebook.panel.get_by_role("link", name=name).first
        async with notebook.page.expect_popup() as popup:
            await link.click()
        shown = await popup.value
        await expect(shown.locator(part).first).to_be_visible(timeout=60_000)
        assert re.match(r"http://rk-[0-9a-f]{16}\.localhost:\d+/at-[0-9a-f]{32}/project/", shown.url)
        address = await link.get_attribute("href")
        assert address is not None
        assert "token" not in address
        await shown.goto(address)
        await expect(shown.locator(part).first).to_be_visible()


@both_front_ends
async def test_chat_answers_stops_and_survives_a_reload(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """An answer is streamed, a long one is stopped; both are there after a reload, and in a second view."""
    open_chat = OPEN_CHAT.replace("rk.chat()", "chat = rk.chat()\nchat")
    await notebook.open(f"story-{front_end}.ipynb", f"island_count = 3\n{open_chat}", "chat")
    await notebook.open_chat()
    await expect(notebook.message_count).to_have_text("0")
    # DSPy answers from its cache what it was asked before, so each front end asks something else.
    question = f"Which island has most penguins in {front_end}?"

    code = "```python\nisland_count + 1\n```"
    streamed = answer(f"{BEFORE_PAUSE} penguins of Biscoe .\n\n{code}", pause_before="penguins")
    scripted_lm.script(tool_call("list_variables", "{}"), decision(), streamed)
    await notebook.ask(question)
    first = notebook.answers.nth(0)
    tool = first.locator(".rk-tool")
    await expect(tool).to_have_attribute("data-state", "finished", timeout=60_000)
    await expect(tool).to_contain_text("list_variables")
    await expect(tool).to_contain_text("island_count")
    await expect(first.locator(".rk-body")).to_contain_text("common answer begins", timeout=60_000)
    await notebook.expect_state(first, "running")
    await expect(first.locator(".rk-body")).not_to_contain_text("Biscoe")
    streamed.gate.set()
    await notebook.expect_state(first, "finished")
    await expect(first.locator(".rk-body strong")).to_have_text("most")
    await expect(first.locator(".rk-body")).to_contain_text("Biscoe")
    await expect(first.locator(".rk-facts")).to_contain_text(" in · ")
    await expect(notebook.message_count).to_have_text("1")

    await first.locator(".rk-code").hover()
    await first.get_by_role("button", name="Insert into a new cell").click()
    await expect(first.get_by_role("button", name="Inserted below")).to_be_visible()
    assert (await notebook.sources())[1] == "island_count + 1"

    scripted_lm.script(decision(), answer(f"{BEFORE_PAUSE} never ends .", pause_before="never"))
    await notebook.ask("Tell me a long story")
    second = notebook.answers.nth(1)
    await expect(second.locator(".rk-body")).to_contain_text("common answer begins", timeout=60_000)
    await notebook.panel.get_by_role("button", name="Stop").click()
    await notebook.expect_state(second, "cancelled")
    await expect(second.locator(".rk-facts")).to_contain_text("Stopped")
    await expect(second.locator(".rk-body")).to_contain_text("common answer begins")
    await expect(notebook.message_count).to_have_text("2")

    await notebook.save()
    await notebook.reload()
    await expect(notebook.questions.locator(".rk-body")).to_have_text([question, "Tell me a long story"])
    await expect(notebook.answers.nth(0).locator(".rk-body")).to_contain_text("of Biscoe")
    await notebook.expect_state(notebook.answers.nth(1), "cancelled")
    await expect(notebook.message_count).to_have_text("2")
    await second_view_goes_on(notebook, scripted_lm)


async def second_view_goes_on(notebook: NotebookPage, scripted_lm: ScriptedLM) -> None:
    """Display the panel again, ask there, and expect the answer in both views."""
    await notebook.run_cell(2)
    first_view, second_view = notebook.panel.nth(0), notebook.panel.nth(1)
    await expect(second_view.locator(".rk-assistant")).to_have_count(2)
    await expect(second_view.locator(".rk-assistant").nth(0)).to_contain_text("of Biscoe")
    scripted_lm.script(decision(), answer("Still here."))
    await second_view.get_by_role("textbox", name="Message").fill("And now?")
    await second_view.get_by_role("button", name="Send", exact=True).click()
    for view in (first_view, second_view):
        await notebook.expect_state(view.locator(".rk-assistant").nth(2), "finished")
        await expect(view.locator(".rk-assistant").nth(2)).to_contain_text("Still here.")
        await expect(view.locator(".rk-value-messages")).to_have_text("3")


@both_front_ends
async def test_keys_and_stop_stay_with_the_panel(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """Keys typed into the composer run no cell, and Stop is heard while a cell runs."""
    # It ends by itself: a test that fails leaves the kernel to the next one.
    gate = (
        "import pathlib, time\nend_s = time.monotonic() + 60\n"
        f"while not pathlib.Path('go-{front_end}').exists() and time.monotonic() < end_s:\n"
        "    time.sleep(0.05)"
    )
    await notebook.open(f"keys-{front_end}.ipynb", OPEN_CHAT, gate)
    await notebook.open_chat()
    scripted_lm.script(decision(), answer(f"{BEFORE_PAUSE} never ends .", pause_before="never"))
    await notebook.composer.click()
    await notebook.page.keyboard.type("one")
    await notebook.page.keyboard.press("Shift+Enter")
    await notebook.page.keyboard.type(f"two dd jj {front_end}")
    await expect(notebook.composer).to_have_value(f"one\ntwo dd jj {front_end}")
    await notebook.page.keyboard.press("Enter")
    await expect(notebook.questions.locator(".rk-body")).to_have_text([f"one\ntwo dd jj {front_end}"])
    await expect(notebook.composer).to_have_value("")
    running = notebook.answers.nth(0)
    await expect(running.locator(".rk-body")).to_contain_text("common answer begins", timeout=60_000)

    await notebook.ask("not now")
    await notebook.expect_state(notebook.answers.nth(1), "queued")
    await notebook.answers.nth(1).get_by_role("button", name="Remove").click()
    await notebook.expect_state(notebook.answers.nth(1), "cancelled")
    await notebook.composer.fill("my draft")

    await notebook.run_cell(1)
    await notebook.expect_running(1)
    await notebook.panel.get_by_role("button", name="Stop").click()
    await notebook.expect_state(running, "cancelled")
    await notebook.expect_running(1)
    await expect(notebook.composer).to_have_value("my draft")
    notebook.release(f"go-{front_end}")
    await notebook.expect_done(0)
    await notebook.expect_done(1)


@both_front_ends
async def test_tools_ask_and_what_is_kept_can_be_changed(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """An allowed tool runs; answers are rated and asked again; sessions are left and found again."""
    await notebook.open(f"tools-{front_end}.ipynb", OPEN_CHAT_WITH_TOOL)
    await notebook.open_chat()
    panel, question = notebook.panel, f"Keep it for {front_end}"
    scripted_lm.script(tool_call("keep", '{"text": "a note"}'), decision(), answer("It is **kept**."))
    await notebook.ask(question)
    approval = panel.get_by_role("group", name="Approval")
    await expect(approval).to_be_visible(timeout=60_000)
    await expect(panel.locator(".rk-tool")).to_contain_text("a note")
    await approval.get_by_role("button", name="Allow once").click()
    first = notebook.answers.nth(0)
    await notebook.expect_state(first, "finished")
    await expect(panel.locator(".rk-tool")).to_contain_text("kept a note")

    helpful = first.get_by_role("button", name="Helpful", exact=True)
    await helpful.click()
    await expect(helpful).to_have_attribute("aria-pressed", "true")
    comment = first.get_by_role("textbox", name="Comment on this answer")
    await comment.fill("to the point")
    await comment.press("Enter")
    await expect(first.get_by_text("“to the point”")).to_be_visible()
    await helpful.click()
    await expect(helpful).to_have_attribute("aria-pressed", "false")

    session_id = await panel.locator(".rk-session").inner_text()
    await panel.get_by_role("button", name="New session").click()
    await expect(notebook.questions).to_have_count(0)
    await expect(panel.locator(".rk-session")).not_to_have_text(session_id)
    await panel.get_by_role("button", name="Earlier sessions").click()
    earlier = panel.locator(".rk-session-choice").and_(panel.get_by_title(session_id))
    await expect(earlier).to_contain_text(question)
    await earlier.click()
    replayed = notebook.questions.filter(has_text=question)
    await expect(replayed).to_have_count(1)
    await expect(notebook.answers.last.locator("strong")).to_have_text("kept")
    await expect(notebook.answers.last.locator(".rk-tool")).to_contain_text("kept a note")

    scripted_lm.script(decision(), answer("Another one."))
    await replayed.hover()
    await replayed.get_by_role("button", name="Edit and send again").click()
    editor = panel.get_by_role("textbox", name="Edit the message")
    await editor.fill(f"Keep nothing for {front_end}")
    await editor.press("Enter")
    await expect(notebook.questions.last).to_contain_text("Keep nothing", timeout=60_000)
    await notebook.expect_state(notebook.answers.last, "finished")
    await expect(replayed).to_have_count(0)

    await panel.get_by_role("button", name="Export").click()
    async with notebook.page.expect_download() as download:
        await panel.get_by_role("button", name="JSON lines").click()
    assert (await download.value).suggested_filename == f"chat-{session_id}.jsonl"


@pytest.mark.parametrize("front_end", ["lab"])
async def test_tools_of_a_project_wait_for_trust(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """The panel shows what the project would start; after Trust its tools are used by the next message."""
    await notebook.open("clone.ipynb", OPEN_CHAT_IN_CLONE, "os.chdir('..')")
    await notebook.open_chat()
    card = notebook.panel.get_by_role("group", name="Trust these tool servers?")
    await expect(card).to_contain_text("stdio_server.py")
    scripted_lm.script(decision(), answer(f"{BEFORE_PAUSE} without the project"))
    await notebook.ask("What is 2 and 3, before anybody said so?")
    first = notebook.answers.nth(0)
    await notebook.expect_state(first, "finished")
    await expect(first).to_contain_text("you have not trusted it: practice")
    await expect(card).to_be_visible()
    await card.get_by_role("button", name="Trust", exact=True).click()
    await expect(card).to_be_hidden()
    add = tool_call("add", '{"a": 2, "b": 3}')
    scripted_lm.script(add, decision(), answer(f"{BEFORE_PAUSE} with the project"))
    await notebook.ask("And what is it now?")
    second = notebook.answers.nth(1)
    await notebook.expect_state(second, "finished")
    await expect(second.locator(".rk-tool")).to_contain_text("add")
    await expect(second.locator(".rk-tool").first).to_have_attribute("data-state", "finished")
    await notebook.run_cell(1)

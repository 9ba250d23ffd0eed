"""The chat panel in real JupyterLab and Notebook 7, answered by the real engine over a scripted model."""

from __future__ import annotations

import pytest
from notebook_page import OPEN_CHAT, NotebookPage
from playwright.async_api import expect
from scripted_lm import Reply, ScriptedLM, adapter_reply

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("browser"),
]

# DSPy holds back the last tokens of a stream until it knows that the field goes on, so the part before the
# pause is longer than what the tests look for.
BEFORE_PAUSE = (
    "The **most** common answer begins with a sentence that is long enough to be shown while the rest of it "
    "is still on its way from the model to the reader "
)

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
async def test_chat_answers_stops_and_survives_a_reload(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """An answer is streamed, a long one is stopped, and both are still there after a reload of the page."""
    await notebook.open(f"story-{front_end}.ipynb", f"island_count = 3\n{OPEN_CHAT}")
    await notebook.open_chat()
    await expect(notebook.message_count).to_have_text("0")
    # DSPy answers from its cache what it was asked before, so each front end asks something else.
    question = f"Which island has most penguins in {front_end}?"

    streamed = answer(f"{BEFORE_PAUSE} penguins of Biscoe .", pause_before="penguins")
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
    scripted_lm.script(decision(), answer("Still here."))
    await notebook.ask("And now?")
    await notebook.expect_state(notebook.answers.nth(2), "finished")


@both_front_ends
async def test_keys_and_stop_stay_with_the_panel(
    notebook: NotebookPage, scripted_lm: ScriptedLM, front_end: str
) -> None:
    """Keys typed into the composer run no cell, and Stop is heard while a cell runs."""
    gate = f"import pathlib, time\nwhile not pathlib.Path('go-{front_end}').exists(): time.sleep(0.05)"
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
    await notebook.expect_prompt(1, "[*]:")
    await notebook.panel.get_by_role("button", name="Stop").click()
    await notebook.expect_state(running, "cancelled")
    await notebook.expect_prompt(1, "[*]:")
    await expect(notebook.composer).to_have_value("my draft")
    notebook.release(f"go-{front_end}")
    await notebook.expect_prompt(0, "[1]:")
    await notebook.expect_prompt(1, "[2]:")

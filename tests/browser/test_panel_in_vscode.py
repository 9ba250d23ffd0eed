"""The chat panel in the widget manager of VS Code's Jupyter extension, in each of its themes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from jupyter_server import JupyterServer
from notebook_page import OPEN_CHAT
from playwright.async_api import Page, expect
from scripted_lm import ScriptedLM, adapter_reply
from vscode_page import THEMES, VSCodePage, build_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.vscode,
    pytest.mark.asyncio(loop_scope="session"),
]

_DEADLINE_MS = 60_000
_LONG = (
    "A sentence that is long enough to be shown while the rest of it is still on its way to the reader, and "
)


@pytest.fixture(scope="session")
def page_files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return build_page(tmp_path_factory.mktemp("vscode"))


@pytest.mark.parametrize("theme", THEMES)
async def test_panel_works_in_vscode(
    page: Page, jupyter: JupyterServer, scripted_lm: ScriptedLM, page_files: Mapping[str, Path], theme: str
) -> None:
    """An answer is streamed, another stopped; who writes while a cell runs is answered after it."""
    vscode = VSCodePage(page, jupyter, page_files)
    await vscode.open(theme)
    assert await vscode.run_cell(OPEN_CHAT) == "ok"
    await expect(vscode.panel).to_be_visible(timeout=_DEADLINE_MS)

    decision = adapter_reply(next_thought="I know.", next_tool_name="finish", next_tool_args="{}")
    code = "Run **this**:\n\n```python\n1 + 1\n```"
    streamed = adapter_reply(pause_before="its", reasoning="I know.", answer=f"{_LONG} its end\n\n{code}")
    scripted_lm.script(decision, streamed)
    await vscode.ask(f"What do I run in VS Code ({theme})?")
    first = vscode.answers.nth(0)
    await expect(first).to_contain_text("long enough to be shown", timeout=_DEADLINE_MS)
    streamed.gate.set()
    await expect(first).to_have_attribute("data-state", "finished", timeout=_DEADLINE_MS)
    await expect(first.locator("strong")).to_have_text("this")
    await expect(first.get_by_role("button", name="Copy the code")).to_be_visible()
    # The web view of the outputs knows nothing of the notebook.
    await expect(first.get_by_role("button", name="Insert into a new cell")).to_have_count(0)

    endless = adapter_reply(pause_before="never", reasoning="I know.", answer=f"{_LONG} never ends")
    scripted_lm.script(decision, endless)
    await vscode.ask(f"And then ({theme})?")
    second = vscode.answers.nth(1)
    await expect(second).to_contain_text("long enough to be shown", timeout=_DEADLINE_MS)
    await vscode.panel.get_by_role("button", name="Stop").click()
    await expect(second).to_have_attribute("data-state", "cancelled", timeout=_DEADLINE_MS)

    scripted_lm.script(decision, adapter_reply(reasoning="I know.", answer="After it."))
    go_on = jupyter.notebook_dir / f"vscode-{theme}"
    waiting = f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)"
    await page.evaluate("(code) => { window.cell = runCell(code); }", waiting)
    await vscode.ask(f"Are you there ({theme})?")
    await expect(vscode.composer).not_to_be_editable()
    await expect(vscode.composer).to_have_value(f"Are you there ({theme})?")
    await expect(vscode.panel.get_by_role("status")).to_contain_text(
        "If a cell is running", timeout=_DEADLINE_MS
    )
    go_on.touch()
    assert await page.evaluate("() => window.cell") == "ok"
    await expect(vscode.composer).to_have_value("")
    await expect(vscode.answers.nth(2)).to_contain_text("After it.", timeout=_DEADLINE_MS)

    await page.evaluate("() => { document.documentElement.lang = 'en'; }")
    found = await Axe().run(page, context=".rk-chat")
    assert [(rule["id"], rule["nodes"][0]["target"]) for rule in found.response["violations"]] == []
    assert vscode.foreign_requests == []

"""A notebook and its chat panel as a person sees them.

All notebooks of a run share one kernel; each opens a panel, and with it a conversation, of its own.
Owns the selectors and the waiting. Invariant: every wait has a deadline, and looks at the state of the
application, not at decorations.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from jupyter_server import JupyterServer
from playwright.async_api import Locator, Page, TimeoutError, expect

OPEN_CHAT = "%load_ext research_kit\nimport research_kit as rk\nrk.chat()"

_READY = """() => {
    const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    const kernel = context?.session?.kernel;
    return !!context?.isReady && kernel?.connectionStatus === "connected" && kernel?.status === "idle";
}"""
_STATE = """() => {
    const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    const kernel = context?.session?.kernel;
    return JSON.stringify([!!window.jupyterapp, context?.isReady, kernel?.connectionStatus, kernel?.status]);
}"""
_SOURCES = "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map((cell) => cell.source)"
_START_DEADLINE_MS = 60_000
_CELL_DEADLINE_MS = 60_000


class NotebookPage:
    """One notebook in one browser tab."""

    def __init__(self, page: Page, server: JupyterServer, front_end: str) -> None:
        self.page = page
        self._server = server
        self._front_end = front_end
        self.panel = page.locator(".rk-chat")
        self.composer = self.panel.get_by_role("textbox", name="Message")
        self.answers = self.panel.locator(".rk-assistant")
        self.questions = self.panel.locator(".rk-message.rk-user")
        self.message_count = self.panel.locator(".rk-value-messages")

    async def open(self, name: str, *sources: str) -> None:
        """Write a notebook with these cells and open it."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, self._server.notebook_dir / name)
        self._server.give_kernel(name)
        await self.page.goto(self._server.page_url(self._front_end, name))
        await self.wait_until_ready()

    async def reload(self) -> None:
        """Reload the page; the kernel goes on."""
        await self.page.reload()
        await self.wait_until_ready()

    async def save(self) -> None:
        """Save the notebook, so that a reload shows its outputs."""
        await self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    async def wait_until_ready(self) -> None:
        """Wait until the notebook has an idle kernel."""
        try:
            await self.page.wait_for_function(_READY, timeout=_START_DEADLINE_MS)
        except TimeoutError as error:
            raise AssertionError(f"not ready: {await self.page.evaluate(_STATE)}") from error

    async def run_cell(self, index: int) -> None:
        """Run a cell with Shift+Enter, as a person does."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        await cell.locator(".cm-content").click()
        await self.page.locator(".jp-mod-editMode .jp-CodeCell .cm-focused").wait_for()
        await self.page.keyboard.press("Shift+Enter")

    async def expect_done(self, index: int) -> None:
        """Wait until a cell has run."""
        await expect(self._prompt(index)).to_have_text(re.compile(r"^\[\d+\]:$"), timeout=_CELL_DEADLINE_MS)

    async def expect_running(self, index: int) -> None:
        """Wait until a cell runs, or waits to."""
        await expect(self._prompt(index)).to_have_text("[*]:", timeout=_CELL_DEADLINE_MS)

    def _prompt(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-InputPrompt")

    async def sources(self) -> list[str]:
        """Return the source of each cell, as the document has it."""
        sources: list[str] = await self.page.evaluate(_SOURCES)
        return sources

    async def open_chat(self) -> None:
        """Run the first cell and wait for the panel."""
        await self.run_cell(0)
        await expect(self.panel).to_be_visible(timeout=_CELL_DEADLINE_MS)
        await self.expect_done(0)

    async def ask(self, text: str) -> None:
        """Write a message and press Enter."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    def release(self, name: str) -> None:
        """Create the file that a waiting cell of this notebook looks for."""
        (self._server.notebook_dir / name).touch()

    async def expect_state(self, answer: Locator, state: str) -> None:
        """Wait until an answer is ``running``, ``finished``, ``failed`` or ``cancelled``."""
        await expect(answer).to_have_attribute("data-state", state, timeout=_CELL_DEADLINE_MS)


async def keep_evidence(page: Page, console: list[str], folder: Path, name: str) -> Path:
    """Save what a failed test showed, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=folder / f"{name}.png")
    (folder / f"{name}.console.txt").write_text("\n".join(console))
    return folder / f"{name}.png"

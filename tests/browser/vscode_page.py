"""Cells and widgets in the web view of VS Code's Jupyter extension, without VS Code around it.

The extension keeps its widget manager in an npm package of its own; the page adds the little that it does
itself: where scripts are found, and the variables of its themes. Owns the page; invariant: a request for
anything but the server and the kernel's environment is noted, and refused.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jupyter_server import JupyterServer
from playwright.async_api import Page, Route

_SOURCES = Path(__file__).parent / "vscode"
_WIDGETS = Path(sys.prefix) / "share" / "jupyter"
_INSTALL_DEADLINE_S = 300.0

THEMES = sorted(path.stem for path in (_SOURCES / "themes").iterdir())
UNTHEMED = "unthemed"


def build_page(folder: Path) -> Mapping[str, Path]:
    """Install what the page is made of into ``folder`` with npm, and return its files by their names."""
    for name in ("package.json", "page.js"):
        shutil.copy(_SOURCES / name, folder)
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    subprocess.run(npm, cwd=folder, check=True, timeout=_INSTALL_DEADLINE_S)
    esbuild = folder / "node_modules" / ".bin" / "esbuild"
    bundle = [str(esbuild), "page.js", "--bundle", "--format=esm", "--outfile=built.js", "--log-level=error"]
    subprocess.run(bundle, cwd=folder, check=True, timeout=_INSTALL_DEADLINE_S)
    return {
        "page.js": folder / "built.js",
        "require.js": folder / "node_modules" / "requirejs" / "require.js",
    }


class VSCodePage:
    """The outputs of one notebook, below each other."""

    def __init__(self, page: Page, server: JupyterServer, files: Mapping[str, Path]) -> None:
        self.page = page
        self._server = server
        self._files = files
        self.panel = page.locator(".rk-chat")
        self.composer = self.panel.get_by_role("textbox", name="Message")
        self.answers = self.panel.locator(".rk-assistant")
        self.foreign_requests: list[str] = []

    async def open(self, theme: str) -> None:
        """Open the page in a theme, with the kernel of the server."""
        await self.page.route("**/*", self._serve)
        # A page whose very address is made up may not connect to a server on this machine.
        await self.page.goto(f"{self._server.base_url}login")
        await self.page.set_content((_SOURCES / "page.html").read_text())
        await self.page.wait_for_function("() => window.isLoaded")
        await self.page.add_style_tag(path=_SOURCES / "themes" / f"{theme}.css")
        if theme != UNTHEMED:
            await self.page.add_style_tag(path=_SOURCES / "bridge.css")
        place = {"token": self._server.token, "kernelId": self._server.kernel_id}
        await self.page.evaluate("(place) => openNotebook(place)", place)

    async def run_cell(self, code: str) -> str:
        """Run a cell, show its widgets, and return how it ended."""
        status: str = await self.page.evaluate("(code) => runCell(code)", code)
        return status

    async def ask(self, text: str) -> None:
        """Write a message and press Enter."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    async def _serve(self, route: Route) -> None:
        base_url, url = self._server.base_url, route.request.url
        if not url.startswith(base_url):
            self.foreign_requests.append(url)
            await route.abort()
        elif not url.startswith(f"{base_url}vscode/"):
            await route.continue_()
        else:
            name = url.removeprefix(f"{base_url}vscode/")
            path = self._files.get(name, _WIDGETS / name)
            await route.fulfill(path=path, content_type="text/javascript")

"""Streamed tokens until a reader sees them: the chat panel, an ipywidgets HTML value, Panel's ChatInterface.

A real JupyterLab in Chromium. The tokens come as fast as the kernel can send them; measured is from the first
token in the kernel to the last one on the page, and what the page's sockets received meanwhile. Panel is
installed into an environment of its own, ``.research_kit/panel``, the first time; where that cannot be done,
the benchmark says so and leaves it out.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import ROOT, Options, Row, median, peers_python
from benchmarks.page_streams import END, READY

_CHROMIUM = Path("/usr/bin/chromium")
_PACKAGES = ("jupyterlab>=4.6,<5", "ipykernel>=7.1", "panel", "pyviz-comms")
_DEADLINE_MS = 300_000
_GOAL_S = 0.2
_GOAL_KB = 30.0
_GOAL_SHOWN_S = 0.3
_SETTLE_MS = 500
# From the key that runs the cell to the first frame in which one more panel is on the page.
_WATCH = """(count) => {
  window.shown = new Promise((resolve) => {
    addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const begin = performance.now();
      const look = () => {
        const isShown = document.querySelectorAll(".rk-chat").length > count;
        return isShown ? resolve(performance.now() - begin) : requestAnimationFrame(look);
      };
      look();
    }, { capture: true });
  });
}"""
# The time of the first frame in which the last of such elements has the text.
_SEE = """([place, text]) => new Promise((resolve) => {
  const look = () => {
    const isThere = [...document.querySelectorAll(place)].at(-1)?.textContent.includes(text);
    return isThere ? resolve(Date.now()) : requestAnimationFrame(look);
  };
  look();
})"""
# Panel takes minutes for 2,000 tokens, and more of them the longer the text is.
_PEER_TOKEN_COUNT = 500


class _Way(NamedTuple):
    """How tokens are shown.

    Attributes:
        opener: The function of `page_streams`.
        ready: What stands there before.
        place: Where the end is looked for; None looks through all of the page, shadow roots too.
    """

    name: str
    opener: str
    ready: str
    place: str | None
    history_count: int
    token_count: int


class _Figures(NamedTuple):
    seconds: float
    kilobytes: float


def measure(options: Options) -> list[Row]:
    """Measure each way; the goals are the panel's."""
    if not _CHROMIUM.exists():
        sys.stdout.write(f"page: there is no browser at {_CHROMIUM}; apt-get install chromium\n")
        return []
    sys.path[:0] = [str(ROOT / "tests" / "browser"), str(ROOT / "tests" / "support")]
    return asyncio.run(_measure(options))


async def _measure(options: Options) -> list[Row]:
    count = 200 if options.is_quick else 2000
    peer_count = min(count, _PEER_TOKEN_COUNT)
    panel = ("chat panel", "open_panel", "Enter sends", ".rk-assistant")
    html = ("ipywidgets HTML value", "open_html", READY, ".widget-html-content > p:last-child")
    panels = [_Way(*panel, history, count) for history in (0, 500)]
    htmls = [_Way(*html, history, count) for history in (0, 500)]
    short = _Way(*panel, 0, peer_count)
    ours, shown_s = await _visit(options, Path(sys.executable), [*panels, short, *htmls], shows_chat=True)
    rows = []
    for own, other in zip(panels, htmls, strict=True):
        rows += _rows(own, ours[own], other, ours[other])
    python = peers_python("panel", _PACKAGES)
    if python is not None:
        peer = _Way("Panel's ChatInterface", "open_interface", READY, None, 0, peer_count)
        theirs, _ = await _visit(options, python, [peer], shows_chat=False)
        rows += _rows(short, ours[short], peer, theirs[peer])
    if shown_s is not None:
        rows.append(Row(name="rk.chat() until shown, warm", value=shown_s, unit="s", goal=_GOAL_SHOWN_S))
    return rows


def _rows(way: _Way, own: _Figures, peer: _Way, theirs: _Figures) -> list[Row]:
    what = f"{way.token_count:,} tokens after {way.history_count} messages"
    against = f"{peer.name}: {theirs.seconds:.2f} s, {theirs.kilobytes:,.0f} kB"
    return [
        Row(
            name=f"{what}, visible",
            value=own.seconds,
            unit="s",
            against=against,
            ratio=own.seconds / theirs.seconds,
            goal=_GOAL_S,
        ),
        Row(
            name=f"{what}, received",
            value=own.kilobytes,
            unit="kB",
            against=against,
            ratio=own.kilobytes / theirs.kilobytes,
            goal=_GOAL_KB,
        ),
    ]


async def _visit(
    options: Options, python: Path, ways: list[_Way], *, shows_chat: bool
) -> tuple[dict[_Way, _Figures], float | None]:
    from jupyter_server import running_jupyter
    from playwright.async_api import async_playwright

    folder = options.folder / python.parts[-3]
    folder.mkdir()
    environment = options.environment(
        "page", RESEARCH_KIT_LM="openai/none", OPENAI_API_KEY="none", LANGFUSE_TRACING_ENABLED="false"
    )
    with running_jupyter(folder, environment, python=python) as server:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            )
            figures: dict[_Way, list[_Figures]] = {way: [] for way in ways}
            for number in range(options.repeat_count):
                for way in ways:
                    name = f"{way.opener}-{way.history_count}-{way.token_count}-{number}.ipynb"
                    figures[way].append(await _stream(await browser.new_page(), server, name, way))
            shown_s = (
                await _show_chat(await browser.new_page(), server, options.repeat_count)
                if shows_chat
                else None
            )
            await browser.close()
    medians = {
        way: _Figures(median(run.seconds for run in runs), median(run.kilobytes for run in runs))
        for way, runs in figures.items()
    }
    return medians, shown_s


async def _stream(page, server, name: str, way: _Way) -> _Figures:  # type: ignore[no-untyped-def] # Playwright's
    from notebook_page import NotebookPage

    received: list[int] = []
    page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))),
    )
    notebook = NotebookPage(page, server, "lab")
    open_view = (
        f"from benchmarks.page_streams import *\nrun = {way.opener}({way.history_count}, {way.token_count})"
    )
    await notebook.open(name, open_view, "run()")
    await notebook.run_cell(0)
    await notebook.expect_done(0)
    await page.get_by_text(way.ready).first.wait_for()
    await page.wait_for_timeout(_SETTLE_MS)
    before = sum(received)
    end_s = await _end(page, notebook, way)
    begin = await page.get_by_text("t0=").first.inner_text()
    await page.wait_for_timeout(_SETTLE_MS)
    await page.context.close()
    return _Figures(
        end_s - float(begin.partition("t0=")[2].split()[0]) / 1000, (sum(received) - before) / 1000
    )


async def _end(page, notebook, way: _Way) -> float:  # type: ignore[no-untyped-def] # Playwright's
    if way.place is None:
        await notebook.run_cell(1)
        await page.get_by_text(END).first.wait_for(timeout=_DEADLINE_MS)
        return time.time()
    seen = asyncio.ensure_future(page.evaluate(_SEE, [way.place, END]))
    await notebook.run_cell(1)
    return await asyncio.wait_for(seen, _DEADLINE_MS / 1000) / 1000


async def _show_chat(page, server, count: int) -> float:  # type: ignore[no-untyped-def] # Playwright's
    from notebook_page import OPEN_CHAT, NotebookPage

    notebook = NotebookPage(page, server, "lab")
    await notebook.open("shown.ipynb", OPEN_CHAT, *["rk.chat()"] * count)
    await notebook.open_chat()
    await notebook.expect_done(0)
    seconds = []
    for number in range(1, count + 1):
        await page.wait_for_timeout(_SETTLE_MS)
        await page.evaluate(_WATCH, number)
        await notebook.run_cell(number)
        seconds.append(await page.evaluate("shown") / 1000)
    return median(seconds)

"""One Jupyter server, one browser and one scripted language model for all browser tests of a run."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

# Test folders are no packages; this makes the modules beside this file importable.
sys.path.insert(0, str(Path(__file__).parent))

from jupyter_server import JupyterServer, running_jupyter
from notebook_page import NotebookPage, keep_evidence
from panel_page import PanelPage
from scripted_lm import MODEL, ScriptedLM, running_lm

CHROMIUM = "/usr/bin/chromium"
_OUTCOME = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def scripted_lm() -> Iterator[ScriptedLM]:
    with running_lm() as lm:
        yield lm


@pytest.fixture(scope="session")
def jupyter(scripted_lm: ScriptedLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    folder = tmp_path_factory.mktemp("jupyter")
    data_dir = folder / "research-kit"
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "test",
        "RESEARCH_KIT_CACHE_DIR": str(folder / "research-kit-cache"),
        "RESEARCH_KIT_DATA_DIR": str(data_dir),
        "RESEARCH_KIT_LM": f"openai/{MODEL}",
        "RESEARCH_KIT_LM_BASE_URL": scripted_lm.base_url,
        "RESEARCH_KIT_STRICT_TELEMETRY": "true",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    with running_jupyter(folder, environ) as server:
        yield server
    # The kernels' store is a process of its own and outlives them.
    from research_kit.store import stop_store

    stop_store(data_dir)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Page]:
    """A tab of its own; when the test fails, what it showed is kept and the place is printed."""
    console: list[str] = []
    context = await browser.new_context(viewport={"width": 1100, "height": 900})
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: console.append(f"pageerror: {error}"))
    yield page
    outcome = request.node.stash.get(_OUTCOME, None)
    if outcome is not None and outcome.failed:
        path = await keep_evidence(page, console, tmp_path, request.node.name)
        print(f"screenshot and console of the failed test: {path}")
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def view(page: Page) -> PanelPage:
    return PanelPage(page)


@pytest.fixture
def notebook(
    page: Page, jupyter: JupyterServer, scripted_lm: ScriptedLM, front_end: str
) -> Iterator[NotebookPage]:
    yield NotebookPage(page, jupyter, front_end)
    scripted_lm.finish()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep the outcome where the page's fixture finds it."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        item.stash[_OUTCOME] = report

"""Every code block of the documentation runs, page by page, in a real kernel with a store of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from kernels import Kernel, end_kernel, start_kernel
from scripted_lm import ScriptedLM, adapter_reply, running_lm

from research_kit.store import StoreAddress, ensure_running, stop_store

ROOT = Path(__file__).parents[1]
# The page on analysis has a test of its own, on recorded sessions: tests/contract/test_analysis_docs.py.
PAGES = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "analysis"),
]
_BLOCK = re.compile(r"^```(?:python|ipython)\n(.*?)^```", re.M | re.S)
_ASKS = re.compile(r"\.ask\(|\.send\(|%chat\b")

# What the reader of any page has: a session with a frame, an answered question and a cell of its own.
_BEFORE = """
import pandas as pd, research_kit as rk
rk.new_session()
df = pd.DataFrame({"first": [1, 2], "group": ["a", "b"]})
rk.Conversation().ask("How many rows has df?")
with rk.trace_span("load"): pass
assert rk.flush()
rk.wait_for(rk.current_session_id(), 2)
"""


class Page(NamedTuple):
    """A page, and what its reader would have done before."""

    path: Path
    blocks: list[str]


def pages() -> list[Page]:
    found = [Page(path, _BLOCK.findall(path.read_text())) for path in PAGES]
    return [page for page in found if page.blocks]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedLM]:
    with running_lm() as lm:
        yield lm


@pytest.fixture(scope="module")
def kernel(server: ScriptedLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("reader")
    data_dir = folder / "data"
    ensure_running(data_dir)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("size = 1")])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, folder / "analysis.ipynb")
    (folder / "literature").mkdir()
    (folder / "literature" / "notes.md").write_text("# Notes\n\nPike live in the north.\n")
    settings = {
        "RESEARCH_KIT_DATA_DIR": str(data_dir),
        "RESEARCH_KIT_CACHE_DIR": str(folder / "cache"),
        "RESEARCH_KIT_LM": "openai/gpt-4o-mini",
        "RESEARCH_KIT_LM_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "x",
        "MPLBACKEND": "agg",
    }
    kernel = start_kernel(settings, cwd=folder)
    kernel.run("%load_ext research_kit")
    # The same question on every page is to be asked each time.
    kernel.run("import dspy; dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)")
    yield kernel
    end_kernel(kernel)
    stop_store(data_dir)


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data_dir = tmp_path_factory.mktemp("other")
    yield ensure_running(data_dir)
    stop_store(data_dir)


def _destination(address: StoreAddress) -> str:
    """What a reader of the page about moving sessions has exported, and the session that is moved."""
    keys = {
        "LANGFUSE_BASE_URL": address.base_url,
        "LANGFUSE_PUBLIC_KEY": address.public_key,
        "LANGFUSE_SECRET_KEY": address.secret_key,
    }
    return f"""
    rk.bind("pilot")
    with rk.trace_span("sampling"): pass
    assert rk.flush()
    rk.wait_for("pilot", 1)
    import os
    os.environ.update({keys!r})
    """


# Further sessions that a page speaks of.
_SESSIONS = {"seeing-and-export.md": ("my-session", "session-a", "session-b")}
_IN_SESSION = """
rk.resume({session_id!r})
rk.Conversation().ask("How many rows has df?")
assert rk.flush()
rk.wait_for({session_id!r}, 1)
"""


def answer_next_question(server: ScriptedLM) -> None:
    steps = [("describe_variable", '{"name": "df"}'), ("finish", "{}")]
    for tool, arguments in steps:
        server.script(adapter_reply(next_thought="I look.", next_tool_name=tool, next_tool_args=arguments))
    server.script(adapter_reply(reasoning="I counted.", answer="It has 2 rows."))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.name)
def test_code_of_a_page_runs(
    page: Page, kernel: Kernel, server: ScriptedLM, other_store: StoreAddress
) -> None:
    """A reader who follows a page from top to bottom meets no error."""
    kernel.run("%reset -f")
    for session_id in _SESSIONS.get(page.path.name, ()):
        answer_next_question(server)
        kernel.run("import pandas as pd, research_kit as rk; df = pd.DataFrame({'first': [1, 2]})")
        kernel.run(_IN_SESSION.format(session_id=session_id))
    answer_next_question(server)
    kernel.run(_BEFORE)
    is_moving = page.path.name == "push-and-pull.md"
    if is_moving:
        kernel.run(_destination(other_store))
    for block in page.blocks:
        for _ in _ASKS.findall(block):
            answer_next_question(server)
        kernel.run(block)
    if is_moving:
        kernel.run(
            "import os; [os.environ.pop(name) for name in list(os.environ) if name[:9] == 'LANGFUSE_']"
        )
    server.finish()

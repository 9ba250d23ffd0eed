"""What a kernel does from loading the extension to its exit, in every state of the ladder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research_kit.store import get_store_status

LOAD = "%load_ext research_kit\nimport research_kit as rk"
SPAN = "with rk.trace_span('work'): pass"
DEADLINE_S = 30.0


def status_of(kernel: Any) -> dict[str, Any]:
    code = "import json, dataclasses; print(json.dumps(dataclasses.asdict(rk.status()), default=str))"
    return json.loads(kernel.run(code))


def names_without_cells(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of observations; the roots of cells are tested on their own."""
    return [row["name"] for row in rows if not row["name"].startswith("cell [")]


def wait_for_state(kernel: Any, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        status = status_of(kernel)
        if status["state"] == state:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def test_loading_is_silent_and_starts_nothing(new_kernel: Callable[..., Any], tmp_path: Path) -> None:
    """Loading the extension prints nothing, imports nothing heavy and starts no server; twice equals once."""
    kernel = new_kernel()
    assert kernel.run(LOAD) == ""
    assert kernel.run("%reload_ext research_kit\n%load_ext research_kit").count("already loaded") <= 1
    heavy = "[n for n in ('langfuse', 'dspy', 'mcp', 'pandas', 'anywidget') if n in sys.modules]"
    assert kernel.run(f"import sys; print({heavy})").strip() == "[]"
    hooks = "get_ipython().events.callbacks['pre_run_cell']"
    assert kernel.run(f"print(sum(h.__module__ == 'research_kit.ipython' for h in {hooks}))").strip() == "1"
    assert not get_store_status(tmp_path / "data").is_running
    assert status_of(kernel)["state"] == "local"


def test_unloading_restores_everything(new_kernel: Callable[..., Any]) -> None:
    """Unloading removes hooks, cell magic and callback and unbinds the session."""
    kernel = new_kernel(LANGFUSE_TRACING_ENABLED="false")
    kernel.run(LOAD + "\nimport dspy")
    kernel.run("%unload_ext research_kit")
    assert kernel.run("print(rk.current_session_id(), dspy.settings.callbacks)").strip() == "None []"
    hooks = "[h for name in shell.events.callbacks for h in shell.events.callbacks[name]]"
    hooks = f"[*{hooks}, *shell.input_transformers_cleanup]"
    found = f"any(getattr(h, '__module__', '') == 'research_kit.ipython' for h in {hooks})"
    assert kernel.run(f"shell = get_ipython()\nprint({found})").strip() == "False"


def test_disabled_imports_and_starts_nothing(new_kernel: Callable[..., Any], tmp_path: Path) -> None:
    """With tracing disabled neither langfuse nor a thread nor a server is started, and user code runs."""
    kernel = new_kernel(LANGFUSE_TRACING_ENABLED="false")
    kernel.run(LOAD)
    kernel.run("import dspy\n" + SPAN)
    shown = kernel.run(
        "import sys, threading\n"
        "ours = [t.name for t in threading.enumerate() if 'research-kit' in t.name]\n"
        "print('langfuse' in sys.modules, ours)"
    )
    assert shown.strip() == "False []"
    assert status_of(kernel)["state"] == "disabled"
    assert not get_store_status(tmp_path / "data").is_running


def test_local_starts_the_store_and_links_to_it(new_kernel: Callable[..., Any], store: Any) -> None:
    """Without keys a span arrives in the embedded store, and the status links to the session's page."""
    kernel = new_kernel()
    kernel.run(LOAD)
    assert kernel.run(SPAN) == ""
    kernel.run("rk.flush()")
    status = status_of(kernel)
    assert (status["state"], status["delivered_count"]) == ("local", 2)  # the work, and its cell
    assert f"/project/{store.address.project_id}/sessions/{status['session_id']}" in status["session_url"]
    assert names_without_cells(store.wait(2, sessionId=status["session_id"])) == ["work"]


def test_connected_sends_to_the_server_of_the_keys(new_kernel: Callable[..., Any], store: Any) -> None:
    """With keys a span goes to their server, and the page address has its project."""
    address = store.address
    kernel = new_kernel(
        LANGFUSE_PUBLIC_KEY=address.public_key,
        LANGFUSE_SECRET_KEY=address.secret_key,
        LANGFUSE_BASE_URL=address.base_url,
    )
    kernel.run(LOAD)
    kernel.run(SPAN + "\nrk.flush()")
    status = wait_for_state(kernel, "connected")
    assert names_without_cells(store.wait(2, sessionId=status["session_id"])) == ["work"]
    assert status["session_url"].startswith(f"{address.base_url}/project/{address.project_id}/")


def test_graceful_exit_delivers_everything(new_kernel: Callable[..., Any], store: Any) -> None:
    """Spans that ended just before the kernel is shut down arrive."""
    kernel = new_kernel()
    kernel.run(LOAD)
    session_id = status_of(kernel)["session_id"]
    kernel.run("for _ in range(20):\n    " + SPAN)
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel()
    assert len(names_without_cells(store.wait(21, sessionId=session_id))) == 20


def test_unusable_data_folder_is_explained(new_kernel: Callable[..., Any], tmp_path: Path) -> None:
    """A data folder that cannot be used leaves cells alone; the status names it and the remedy."""
    (tmp_path / "file").write_text("not a folder")
    kernel = new_kernel(RESEARCH_KIT_DATA_DIR=str(tmp_path / "file"), RESEARCH_KIT_STRICT_TELEMETRY="false")
    kernel.run(LOAD)
    assert kernel.run(SPAN) == ""
    status = status_of(kernel)
    assert status["state"] == "buffering"
    assert str(tmp_path / "file") in status["reason"]


def test_settings_that_break_tracing_break_no_cell(new_kernel: Callable[..., Any]) -> None:
    """A setting that Langfuse's SDK chokes on, or half of a pair of keys, is told by the status alone."""
    kernel = new_kernel(LANGFUSE_SAMPLE_RATE="often", RESEARCH_KIT_STRICT_TELEMETRY="false")
    kernel.run(LOAD)
    assert kernel.run(SPAN) == ""
    status = status_of(kernel)
    assert (status["state"], "ValueError" in status["reason"]) == ("buffering", True), status
    kernel.run("import os\nos.environ['LANGFUSE_PUBLIC_KEY'] = 'pk'")
    assert kernel.run(SPAN) == ""


def test_names_of_the_chat_application_work(new_kernel: Callable[..., Any], store: Any) -> None:
    """The six names on `langfuse_manager` bind, tell, trace and clear."""
    kernel = new_kernel()
    kernel.run("import research_kit as rk\nmanager = rk.langfuse_manager")
    kernel.run("manager.set_session('from-the-app', 'ann')\nmanager.set_user('bob')")
    assert kernel.run("print(manager.current_session_id, manager.current_user_id)") == "from-the-app bob\n"
    kernel.run("with manager.trace_span('work'): pass\nrk.flush()")
    [row] = store.wait(1, sessionId="from-the-app")
    assert (row["name"], row["userId"]) == ("work", "bob")
    kernel.run("manager.clear_session()")
    assert kernel.run("print(manager.current_session_id)") == "None\n"
    kernel.run("with manager.trace_span('after'): pass\nrk.flush()")
    assert len(store.read()) == 1

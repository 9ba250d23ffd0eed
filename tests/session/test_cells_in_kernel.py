"""A cell in which something observed happens is one trace, and no other cell is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORK = "with rk.trace_span('work'): pass"
FAILING = {
    "exception": ("1 / 0", "ERROR", "error", "ZeroDivisionError: division by zero"),
    "exit of an async cell": (
        "import asyncio\nawait asyncio.sleep(0)\nraise KeyError('k')",
        "ERROR",
        "error",
        "KeyError: 'k'",
    ),
    "interrupt": ("raise KeyboardInterrupt", "WARNING", "interrupted", "interrupted"),
    "interrupt of an async cell": (
        "import asyncio\nawait asyncio.sleep(0)\nraise asyncio.CancelledError",
        "WARNING",
        "interrupted",
        "interrupted",
    ),
}


def new_session(kernel: Any) -> str:
    return kernel.run("rk.new_session(); print(rk.current_session_id())").strip()


def execute(kernel: Any, code: str) -> dict[str, Any]:
    """Run a cell that may fail."""
    return kernel.client.execute_interactive(code, timeout=60, output_hook=lambda message: None)["content"]


def count_of(kernel: Any) -> int:
    """Return the number of the next cell."""
    return int(kernel.run("print(get_ipython().execution_count)"))


def cells_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["name"].startswith("cell [")]


def test_observed_cell_is_one_trace(shared_kernel: Any, shared_store: Any) -> None:
    """What a cell observes are children of one root that says which cell it was."""
    session_id, number = new_session(shared_kernel), count_of(shared_kernel)
    code = f"{WORK}\nfrom langfuse import observe\n@observe(name='own')\ndef go(): pass\ngo()"
    shared_kernel.run(code)
    shared_kernel.run("rk.flush()")
    rows = {row["name"]: row for row in shared_store.wait(3, sessionId=session_id)}
    assert set(rows) == {f"cell [{number}]", "work", "own"}
    root = rows[f"cell [{number}]"]
    assert root["parentObservationId"] in (None, "")
    assert {rows[name]["parentObservationId"] for name in ("work", "own")} == {root["id"]}
    assert {row["traceName"] for row in rows.values()} == {f"cell [{number}]"}
    metadata = root["metadata"]
    assert metadata["source_hash"] == hashlib.sha256(code.encode()).hexdigest()[:16]
    assert (str(metadata["execution_count"]), metadata["outcome"]) == (str(number), "success")
    assert (root["level"], root["startTime"] <= rows["work"]["startTime"]) == ("DEFAULT", True)


def test_other_cells_leave_nothing(shared_kernel: Any, shared_store: Any) -> None:
    """Cells in which nothing observed happens leave no trace."""
    session_id = new_session(shared_kernel)
    for code in ("1 + 1", "import os", "# only a remark", "   "):
        shared_kernel.run(code)
    execute(shared_kernel, "1 / 0")
    execute(shared_kernel, "not python")
    shared_kernel.run(WORK)
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(2, sessionId=session_id)
    assert [row["name"] for row in rows if not row["name"].startswith("cell [")] == ["work"]
    assert len(rows) == 2


@pytest.mark.parametrize("case", FAILING)
def test_ending_of_a_cell_is_told(case: str, shared_kernel: Any, shared_store: Any) -> None:
    """A failing cell is an error with its message, and an interrupted one a warning."""
    code, level, outcome, message = FAILING[case]
    session_id = new_session(shared_kernel)
    assert execute(shared_kernel, f"{WORK}\n{code}")["status"] == "error"
    shared_kernel.run("rk.flush()")
    [root] = cells_of(shared_store.wait(2, sessionId=session_id))
    assert (root["level"], root["metadata"]["outcome"], root["statusMessage"]) == (level, outcome, message)


def test_async_cell_is_one_trace(shared_kernel: Any, shared_store: Any) -> None:
    """Awaits, tasks and worker threads of an async cell are in its trace; the next cell is another."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(
        textwrap.dedent("""
        import asyncio
        def work():
            with rk.trace_span('work'): pass
        async def task(): work()
        await asyncio.sleep(0)
        work()
        await asyncio.create_task(task())
        await asyncio.to_thread(work)
        """)
    )
    shared_kernel.run("work()")
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(6, sessionId=session_id)
    first, second = sorted(cells_of(rows), key=lambda row: row["startTime"])
    of_first = [row["name"] for row in rows if row["parentObservationId"] == first["id"]]
    assert of_first == ["work"] * 3
    assert [row["name"] for row in rows if row["parentObservationId"] == second["id"]] == ["work"]


def test_cell_in_a_cell_belongs_to_the_outer_one(shared_kernel: Any, shared_store: Any) -> None:
    """Cells that a cell runs itself, failing and empty ones too, make no traces of their own."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(
        "shell = get_ipython()\n"
        "for code in (\"with rk.trace_span('inner'): pass\", '1 / 0', ''):\n"
        "    shell.run_cell(code)\n"
        "with rk.trace_span('outer'): pass"
    )
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(3, sessionId=session_id)
    [root] = cells_of(rows)
    assert {row["name"] for row in rows} == {root["name"], "inner", "outer"}
    assert {row["traceId"] for row in rows} == {root["traceId"]}
    assert root["metadata"]["outcome"] == "success"


def test_thread_names_its_cell(shared_kernel: Any, shared_store: Any) -> None:
    """What happens in a plain thread is a trace of its own that names the cell, whose trace is kept too."""
    session_id, number = new_session(shared_kernel), count_of(shared_kernel)
    shared_kernel.run(
        "import threading\n"
        "def go():\n    with rk.trace_span('threaded'): pass\n"
        "thread = threading.Thread(target=go); thread.start(); thread.join()"
    )
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(2, sessionId=session_id)
    [root], [threaded] = cells_of(rows), [row for row in rows if row["name"] == "threaded"]
    assert threaded["metadata"]["cell_trace_id"] == root["traceId"] != threaded["traceId"]
    assert str(threaded["metadata"]["execution_count"]) == str(number)


def test_handlers_between_cells_are_in_no_cell(shared_kernel: Any, shared_store: Any) -> None:
    """A comm message that arrives after a cell is handled outside of the cell's trace."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(
        "from comm import create_comm\n"
        "def handle(message):\n    with rk.trace_span('handled'): pass\n"
        "channel = create_comm(target_name='nobody')\n"
        "channel.on_msg(handle)\n"
        f"{WORK}"
    )
    comm_id = shared_kernel.run("print(channel.comm_id)").strip()
    client = shared_kernel.client
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": comm_id, "data": {}}))
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(3, sessionId=session_id)
    [root], [handled] = cells_of(rows), [row for row in rows if row["name"] == "handled"]
    assert handled["traceId"] != root["traceId"]
    assert "source_hash" not in handled["metadata"]


@pytest.mark.parametrize("ending", ["pass", "1 / 0", "raise KeyboardInterrupt", "await asyncio.sleep(0)"])
def test_context_is_clean_after_a_cell(ending: str, shared_kernel: Any) -> None:
    """Between cells no observation is current; silent executions, which fire no events, see that."""
    new_session(shared_kernel)
    execute(shared_kernel, f"import asyncio\nfrom opentelemetry import trace\n{WORK}\n{ending}")
    shared_kernel.client.execute_interactive(
        "seen = trace.get_current_span() is trace.INVALID_SPAN", silent=True, timeout=60
    )
    assert shared_kernel.run("print(seen)").strip() == "True"


def test_trace_magic_names_the_trace(shared_kernel: Any, shared_store: Any) -> None:
    """``%%trace name`` always makes a trace of that name, and the cell runs as any other."""
    session_id = new_session(shared_kernel)
    assert shared_kernel.run("%%trace first\nimport asyncio\nawait asyncio.sleep(0, 41)") == "41"
    assert "Wall time" in shared_kernel.run(f"%%trace second\n%%time\n{WORK}")
    answer = execute(shared_kernel, "%%trace third\n1 / 0")
    assert any("----> 2 1 / 0" in "".join(line.split("\x1b[")) or "2" in line for line in answer["traceback"])
    shared_kernel.run("rk.flush()")
    rows = {row["name"]: row for row in shared_store.wait(4, sessionId=session_id)}
    assert set(rows) == {"first", "second", "work", "third"}
    assert rows["work"]["traceId"] == rows["second"]["traceId"]
    assert rows["third"]["level"] == "ERROR"


def test_cell_that_switches_tracing_on_is_a_trace(new_kernel: Callable[..., Any], store: Any) -> None:
    """The first observed cell of a kernel, in which telemetry begins, is a trace from its beginning on."""
    kernel = new_kernel()
    kernel.run("%load_ext research_kit\nimport research_kit as rk")
    kernel.run("import time\nbefore = time.time()\nimport langfuse\nwith rk.trace_span('work'): pass")
    session_id = kernel.run("rk.flush(); print(rk.current_session_id())").strip()
    rows = store.wait(2, sessionId=session_id)
    [root] = cells_of(rows)
    assert [row["name"] for row in rows if row["parentObservationId"] == root["id"]] == ["work"]


def test_span_held_open_over_cells_keeps_what_follows(shared_kernel: Any, shared_store: Any) -> None:
    """An observation that the user holds open over several cells stays the parent of what they observe."""
    session_id = new_session(shared_kernel)
    shared_kernel.run("held = rk.trace_span('held')\n_ = held.__enter__()")
    shared_kernel.run(WORK)
    shared_kernel.run("held.__exit__(None, None, None)")
    shared_kernel.run("with rk.trace_span('after'): pass")
    shared_kernel.run("rk.flush()")
    rows = {row["name"]: row for row in shared_store.wait(5, sessionId=session_id)}
    assert rows["work"]["parentObservationId"] == rows["held"]["id"]
    first, last = sorted(cells_of(list(rows.values())), key=lambda row: row["startTime"])
    assert (rows["held"]["traceId"], rows["after"]["traceId"]) == (first["traceId"], last["traceId"])


def test_message_in_a_cell_is_a_trace_of_its_own(shared_kernel: Any, shared_store: Any) -> None:
    """A trace that asks for an empty context, as a chat message does, says nothing of its cell."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(
        "from opentelemetry.context import Context\n"
        "from research_kit.session import get_tracer\n"
        "get_tracer().start_span('chat', context=Context()).end()"
    )
    shared_kernel.run("rk.flush()")
    [row] = shared_store.wait(1, sessionId=session_id)
    assert row["name"] == "chat"
    assert not {"cell_id", "execution_count", "source_hash"} & set(row["metadata"])


def commit_of(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_root_says_where_it_ran(shared_kernel: Any, shared_store: Any, shared_data_dir: Path) -> None:
    """The root of a trace names kernel, host, versions and commit; its children do not repeat them."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(WORK)
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(2, sessionId=session_id)
    [root], [work] = cells_of(rows), [row for row in rows if row["name"] == "work"]
    shown = json.loads(
        shared_kernel.run(
            "import json, platform, socket; from ipykernel.connect import get_connection_file as f\n"
            "print(json.dumps([f(), socket.gethostname(), platform.python_version()]))"
        )
    )
    assert root["metadata"]["kernel_id"] in shown[0]
    assert [root["metadata"][key] for key in ("host", "python")] == shown[1:]
    assert "version_research_kit" in root["metadata"]
    assert "host" not in work["metadata"]
    assert (root["metadata"]["git_commit"], root["metadata"]["git_dirty"]) == (
        commit_of(shared_data_dir),
        "true",
    )


def test_notebook_that_vs_code_tells(shared_kernel: Any, shared_store: Any) -> None:
    """VS Code tells the notebook's path in a variable, which each cell is asked for again."""
    session_id = new_session(shared_kernel)
    shared_kernel.run("__vsc_ipynb_file__ = '/home/ann/b.ipynb'")
    shared_kernel.run(WORK)
    shared_kernel.run("del __vsc_ipynb_file__; rk.flush()")
    [root] = cells_of(shared_store.wait(2, sessionId=session_id))
    assert root["metadata"]["notebook"] == "/home/ann/b.ipynb"

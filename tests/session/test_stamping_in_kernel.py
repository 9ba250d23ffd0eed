"""Every span of a kernel carries the session, wherever it begins."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

PLACES = {
    "plain cell": "with rk.trace_span('work'): pass",
    "async cell": """
        import asyncio
        async def go():
            await asyncio.sleep(0)
            with rk.trace_span('work'): pass
        await go()
        """,
    "task": """
        import asyncio
        async def go():
            with rk.trace_span('work'): pass
        await asyncio.create_task(go())
        """,
    "to_thread": """
        import asyncio
        def go():
            with rk.trace_span('work'): pass
        await asyncio.to_thread(go)
        """,
    "Thread": """
        import threading
        def go():
            with rk.trace_span('work'): pass
        thread = threading.Thread(target=go); thread.start(); thread.join()
        """,
    "generator": """
        def go():
            with rk.trace_span('work'):
                yield 1
        list(go())
        """,
    "decorated function of the SDK": """
        from langfuse import observe
        @observe(name='work')
        def go(): pass
        go()
        """,
    "plain OpenTelemetry": """
        from opentelemetry import trace
        with trace.get_tracer('openinference.mine').start_as_current_span('work'): pass
        """,
    "async block": """
        async with rk.trace_span('work'): pass
        """,
}
HANDLERS = {
    "comm": (
        """
        from comm import create_comm
        def go(message):
            with rk.trace_span('work'): pass
        channel = create_comm(target_name='nobody')
        channel.on_msg(go)
        print(channel.comm_id)
        """,
        {},
    ),
    "widget": (
        """
        import ipywidgets
        button = ipywidgets.Button()
        def go(_):
            with rk.trace_span('work'): pass
        button.on_click(go)
        print(button.comm.comm_id)
        """,
        {"method": "custom", "content": {"event": "click"}},
    ),
}


def without_cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the roots of cells, which are tested on their own."""
    return [row for row in rows if not row["name"].startswith("cell [")]


def new_session(kernel: Any) -> str:
    return kernel.run("rk.new_session(); print(rk.current_session_id())").strip()


@pytest.mark.parametrize("place", PLACES)
def test_span_carries_session_in(place: str, shared_kernel: Any, shared_store: Any) -> None:
    """A span that begins in this place belongs to the session that is bound."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(textwrap.dedent(PLACES[place]))
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(2, sessionId=session_id)
    [row] = without_cells(rows)
    assert (row["name"], row["userId"] != "") == ("work", True)
    assert len(rows) == 2


@pytest.mark.parametrize("handler", HANDLERS)
def test_handler_carries_session(handler: str, shared_kernel: Any, shared_store: Any) -> None:
    """What a front end's message sets off between two cells belongs to the session, and to no cell."""
    code, data = HANDLERS[handler]
    session_id = new_session(shared_kernel)
    comm_id = shared_kernel.run(textwrap.dedent(code)).strip()
    client = shared_kernel.client
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": comm_id, "data": data}))
    shared_kernel.run("rk.flush()")
    [row] = shared_store.wait(1, sessionId=session_id)
    assert (row["name"], row["userId"] != "") == ("work", True)


def test_pool_made_before_a_change_uses_the_new_session(shared_kernel: Any, shared_store: Any) -> None:
    """A thread pool that is older than the session stamps the session that is current."""
    shared_kernel.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1)\n"
        "def go():\n    with rk.trace_span('pooled'): pass\n"
        "pool.submit(go).result()"
    )
    session_id = new_session(shared_kernel)
    shared_kernel.run("pool.submit(go).result(); rk.flush()")
    [row] = without_cells(shared_store.wait(1, sessionId=session_id))
    assert row["name"] == "pooled"


def test_open_trace_keeps_its_session(shared_kernel: Any, shared_store: Any) -> None:
    """Changing the session midway leaves a trace that is open where it began."""
    first = new_session(shared_kernel)
    shared_kernel.run(
        "with rk.trace_span('outer'):\n"
        "    rk.new_session()\n"
        "    with rk.trace_span('inner'): pass\n"
        "with rk.trace_span('after'): pass\n"
        "second = rk.current_session_id(); rk.flush()"
    )
    second = shared_kernel.run("print(second)").strip()
    rows = shared_store.wait(3, sessionId=first)
    assert {row["name"] for row in without_cells(rows)} == {"outer", "inner"}
    later = shared_store.wait(2, sessionId=second)
    assert [row["name"] for row in without_cells(later)] == ["after"]
    assert len({row["traceId"] for row in rows}) == len({row["traceId"] for row in later}) == 1
    assert rows[0]["traceId"] != later[0]["traceId"]


def test_session_of_user_code_wins(shared_kernel: Any, shared_store: Any) -> None:
    """A session that user code propagates itself is left alone, for its children too."""
    new_session(shared_kernel)
    shared_kernel.run(
        "from langfuse import propagate_attributes\n"
        "with propagate_attributes(session_id='mine'):\n"
        "    with rk.trace_span('outer'):\n"
        "        with rk.trace_span('inner'): pass\n"
        "rk.flush()"
    )
    rows = shared_store.wait(2, sessionId="mine")
    assert {row["name"] for row in rows} == {"outer", "inner"}


def test_seeded_random_gives_new_ids(shared_kernel: Any, shared_store: Any) -> None:
    """Seeding the global random state does not repeat trace ids."""
    session_id = new_session(shared_kernel)
    for _ in range(3):
        shared_kernel.run("import random; random.seed(42)\nwith rk.trace_span('seeded'): pass")
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(6, sessionId=session_id)
    assert len({row["traceId"] for row in rows}) == 3
    assert len({row["id"] for row in rows}) == 6


def test_subshell_carries_session(shared_kernel: Any, shared_store: Any) -> None:
    """Code that runs in a kernel subshell belongs to the kernel's session."""
    session_id = new_session(shared_kernel)
    client = shared_kernel.client
    control = client.session.msg("create_subshell_request", {})
    client.control_channel.send(control)
    subshell_id = client.control_channel.get_msg(timeout=20)["content"]["subshell_id"]
    request = client.session.msg(
        "execute_request",
        {"code": "with rk.trace_span('in subshell'): pass\nrk.flush()", "silent": False},
    )
    request["header"]["subshell_id"] = subshell_id
    client.shell_channel.send(request)
    assert client.shell_channel.get_msg(timeout=20)["content"]["status"] == "ok"
    [row] = without_cells(shared_store.wait(1, sessionId=session_id))
    assert row["name"] == "in subshell"


def test_parallel_is_one_tree(shared_kernel: Any, shared_store: Any) -> None:
    """The workers of dspy.Parallel are in the trace of the cell, inside a module and at top level."""
    session_id = new_session(shared_kernel)
    shared_kernel.run(
        textwrap.dedent("""
        import dspy
        class Leaf(dspy.Module):
            def forward(self, n): return dspy.Prediction(n=n)
        class Branch(dspy.Module):
            def __init__(self):
                super().__init__(); self.leaf = Leaf()
            def forward(self):
                tasks = [(self.leaf, {'n': n}) for n in range(4)]
                return dspy.Prediction(all=dspy.Parallel(num_threads=2, disable_progress_bar=True)(tasks))
        _ = Branch()()
        _ = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Leaf(), {'n': n}) for n in range(4)])
        """)
    )
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(12, sessionId=session_id)
    assert len({row["traceId"] for row in rows}) == 1
    names = {row["id"]: row["name"] for row in rows}
    parents = sorted((row["name"], names.get(row["parentObservationId"], "")) for row in rows)
    cell = next(name for name in names.values() if name.startswith("cell ["))
    expected = [("Branch", cell), ("Parallel", "Branch"), ("Parallel", cell), (cell, "")]
    assert parents == sorted([*expected, *[("Leaf", "Parallel")] * 8])


CONFIGURED = """
import dspy
from dspy.utils.callback import BaseCallback
mine, seen = [], []
class Mine(BaseCallback):
    def on_tool_start(self, call_id, instance, inputs): seen.append(instance.name)
def call(name): dspy.Tool(lambda: 1, name=name)()
dspy.configure(callbacks=mine)
call('configured')
mine.append(Mine())
call('appended')
with dspy.context(callbacks=[Mine()]):
    call('in a context')
dspy.settings.configure(callbacks=[])
dspy.settings.callbacks = []
call('set')
print(seen)
"""


def test_callback_survives_what_the_user_configures(shared_kernel: Any, shared_store: Any) -> None:
    """Callbacks of the user's own work as ever; calls are observed beside them, in the same cell too."""
    session_id = new_session(shared_kernel)
    assert shared_kernel.run(CONFIGURED) == "['appended', 'in a context']\n"
    shared_kernel.run("rk.flush()")
    rows = without_cells(shared_store.wait(5, sessionId=session_id))
    assert sorted(row["name"] for row in rows) == ["appended", "configured", "in a context", "set"]

"""What other processes do for a kernel belongs to its session: children, tool servers, and nobody else."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from scripted_lm import running_lm

CHILD = """
import research_kit as rk

def work(name):
    with rk.trace_span(name):
        pass
"""
CHILDREN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
sys.path.insert(0, {folder!r})
import child_module
context = multiprocessing.get_context({method!r})
children = [context.Process(target=child_module.work, args=(f'process {{n}}',)) for n in range(2)]
for child in children: child.start()
for child in children: child.join()
with ProcessPoolExecutor(1, mp_context=context) as pool:
    pool.submit(child_module.work, 'pooled').result()
print([child.exitcode for child in children])
"""
# A program of its own, as its author would write it.
SERVER = """
import sys
import research_kit as rk
from mcp.server.mcpserver import MCPServer

rk.bind(tags=["server"])
rk.instrument("mcp")
server = MCPServer("remote")

@server.tool()
def add(a: int, b: int) -> int:
    with rk.trace_span("inside the handler"):
        pass
    rk.flush()
    return a + b

if sys.argv[1] == "stdio":
    server.run()
else:
    server.run("streamable-http", port=int(sys.argv[2]), host="127.0.0.1")
rk.flush()
"""
STDIO = """
import os, sys
from mcp import StdioServerParameters
from research_kit.agent import ToolServer, build_kernel_server
environ = {{k: v for k, v in os.environ.items() if k.startswith('RESEARCH_KIT_')}}
target = StdioServerParameters(command=sys.executable, args=[{server!r}, 'stdio'], env=environ)
remote = ToolServer('remote', target)
with rk.trace_span('question'):
    print(remote.call_tool('add', {{'a': 1, 'b': 2}}).text)
    rk.new_session()
    assert remote.call_tool('add', {{'a': 2, 'b': 2}}).text == '4'

    assert ToolServer('kernel', build_kernel_server(lambda: {{'x': 1}})).call_tool('list_variables').text
remote.close()
"""
HTTP = """
import socket, subprocess, sys, time
from contextlib import suppress
from mcp import Client
with socket.socket() as free:
    free.bind(('127.0.0.1', 0)); port = free.getsockname()[1]
process = subprocess.Popen([sys.executable, {server!r}, 'http', str(port)], stderr=subprocess.DEVNULL)
while process.poll() is None:
    with suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=1):
        break
    time.sleep(0.05)
with rk.trace_span('question'):
    async with Client(f'http://127.0.0.1:{{port}}/mcp') as client:
        answer = await client.call_tool('add', {{'a': 1, 'b': 2}})
print(answer.content[0].text)
process.terminate()
_ = process.wait()
"""


def new_session(kernel: Any) -> str:
    return kernel.run("rk.new_session(user_id='ada'); print(rk.current_session_id())").strip()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_are_in_the_session(
    method: str, tmp_path: Path, shared_kernel: Any, shared_store: Any
) -> None:
    """Children of multiprocessing record without being told, whatever way they are started."""
    (tmp_path / "child_module.py").write_text(CHILD)
    session_id = new_session(shared_kernel)
    code = CHILDREN.format(folder=str(tmp_path), method=method)
    assert shared_kernel.run(code).strip() == "[0, 0]"
    rows = shared_store.wait(3, sessionId=session_id)
    made = sorted(row["name"] for row in rows if not row["name"].startswith("cell ["))
    assert made == ["pooled", "process 0", "process 1"]
    assert {row["userId"] for row in rows} == {"ada"}


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_tool_server_joins_the_trace(
    transport: str, tmp_path: Path, shared_kernel: Any, shared_store: Any
) -> None:
    """Client, server and what the handler observes are one trace of the session that it began in.

    There is no chatter of the protocol in it, and of a server in the same process there is the tool alone.
    """
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    session_id = new_session(shared_kernel)
    code = (STDIO if transport == "stdio" else HTTP).format(server=str(server))
    assert shared_kernel.run(code).strip() == "3"
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(5 if transport == "http" else 9, sessionId=session_id)
    assert len({row["traceId"] for row in rows}) == 1
    assert {row["userId"] for row in rows} == {"ada"}
    names = {row["id"]: row["name"] for row in rows}
    parents = sorted((row["name"], names.get(row["parentObservationId"], "")) for row in rows)
    cell = next(name for name in names.values() if name.startswith("cell ["))
    call = [
        ("MCP send tools/call add", "question"),
        ("add", "MCP send tools/call add"),
        ("inside the handler", "add"),
    ]
    expected = [(cell, ""), ("question", cell), *call]
    if transport == "stdio":
        expected += [*call, ("list_variables", "question")]
    assert parents == sorted(expected)
    assert {row["type"] for row in rows if row["name"] in ("add", "list_variables")} == {"TOOL"}


def test_model_provider_learns_nothing(shared_kernel: Any, shared_store: Any) -> None:
    """A request to a language model's provider carries neither the session nor the user, in no header."""
    session_id = new_session(shared_kernel)
    with running_lm() as server:
        server.script("blue", "blue")
        shared_kernel.run(
            textwrap.dedent(f"""
            import dspy, httpx
            lm = dspy.LM('openai/gpt-4o-mini', api_base={server.base_url!r}, api_key='test', cache=False)
            with rk.trace_span('question'):
                lm('sky?')
                body = {{'model': 'm', 'messages': []}}
                _ = httpx.post({server.base_url + "/chat/completions"!r}, json=body)
            """)
        )
        headers = str(server.headers).lower()
        assert len(server.headers) == 2
    assert "baggage" not in headers
    assert session_id not in headers
    assert "ada" not in headers

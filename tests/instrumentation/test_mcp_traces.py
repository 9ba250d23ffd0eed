"""Both sides of an MCP call are one trace of the session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from research_kit.store import ensure_running, stop_store

PROGRAM = """
import socket, threading, time
import uvicorn
import research_kit as rk
from mcp.server.mcpserver import MCPServer
from research_kit.agent import ToolServer, build_kernel_server
from research_kit.session import kernel_session

rk.bind("mcp")
server = MCPServer("remote")

@server.tool()
def add(a: int, b: int) -> int:
    with rk.trace_span("inside the handler"):
        return a + b

port = socket.socket(); port.bind(("127.0.0.1", 0)); number = port.getsockname()[1]; port.close()
web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), port=number, log_level="error"))
threading.Thread(target=web.run, daemon=True).start()
while not web.started:
    time.sleep(0.02)

with rk.trace_span("question"):
    print(ToolServer("remote", f"http://127.0.0.1:{number}/mcp").call_tool("add", {"a": 1, "b": 2}).text)
    print(ToolServer("kernel", build_kernel_server(lambda: {"x": 1})).call_tool("list_variables").text)

assert rk.flush()
rk.wait_for("mcp", 5)
frame = rk.observations_df("mcp")
columns = ["observation_id", "parent_observation_id", "trace_id", "type", "name"]
print(frame[columns].to_json(orient="values"))
"""


def test_client_server_and_handler_are_one_trace(tmp_path: Path) -> None:
    """Client span, server span and what the handler observes are one tree, without protocol chatter."""
    environ = {**os.environ, "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data")}
    ensure_running(tmp_path / "data")
    try:
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)], env=environ, capture_output=True, text=True
        )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    first, *_, last = run.stdout.strip().splitlines()
    assert first == "3"
    rows = {name: (own, parent, trace, kind) for own, parent, trace, kind, name in json.loads(last)}
    assert set(rows) == {"question", "MCP send tools/call add", "add", "inside the handler", "list_variables"}
    assert len({trace for _, _, trace, _ in rows.values()}) == 1
    assert rows["MCP send tools/call add"][1] == rows["question"][0]
    assert rows["add"][1] == rows["MCP send tools/call add"][0]
    assert rows["inside the handler"][1] == rows["add"][0]
    assert rows["list_variables"][1] == rows["question"][0]
    assert rows["add"][3] == "TOOL"

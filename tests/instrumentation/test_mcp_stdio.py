"""A tool server in a process of its own joins the caller's trace and session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from research_kit.store import ensure_running, stop_store

SERVER = """
import research_kit as rk
from research_kit.instrumentation import instrument
from mcp.server.mcpserver import MCPServer

rk.bind(metadata={"whose": "server"}, tags=["server"])
instrument("mcp")
server = MCPServer("remote")

@server.tool()
def add(a: int, b: int) -> int:
    with rk.trace_span("inside the handler"):
        pass
    rk.flush()
    return a + b

server.run()
rk.flush()
"""

PROGRAM = """
import asyncio, os, sys
import research_kit as rk
from mcp import Client, StdioServerParameters
from opentelemetry.propagate import inject
from research_kit.agent import ToolServer

rk.bind("stdio", user_id="ada", metadata={"whose": "client"})
environ = {k: v for k, v in os.environ.items() if k.startswith("RESEARCH_KIT_")}
parameters = StdioServerParameters(command=sys.executable, args=[sys.argv[1]], env=environ)
remote = ToolServer("remote", parameters)

async def ask_without_us():
    async with Client(parameters) as client:
        await client.call_tool("add", {"a": 3, "b": 2})

with rk.trace_span("question"):
    assert remote.call_tool("add", {"a": 1, "b": 2}).text == "3"
    rk.new_session()
    assert remote.call_tool("add", {"a": 2, "b": 2}).text == "4"
    asyncio.run(ask_without_us())
    sent_elsewhere = {}
    inject(sent_elsewhere)
    assert "traceparent" in sent_elsewhere and "session" not in str(sent_elsewhere), sent_elsewhere
remote.close()
assert rk.flush()
rk.wait_for("stdio", 10)
frame = rk.observations_df("stdio")
columns = ["name", "observation_id", "parent_observation_id", "trace_id", "session_id", "user_id"]
print(frame[columns].to_json(orient="records"))
"""


def test_server_process_joins_the_callers_trace(tmp_path: Path) -> None:
    """Server and handler spans have the caller's trace, session and user, also with the user's own client."""
    environ = {**os.environ, "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data")}
    script = tmp_path / "server.py"
    script.write_text(textwrap.dedent(SERVER))
    ensure_running(tmp_path / "data")
    try:
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(script)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.strip().splitlines()[-1])
    assert sorted(row["name"] for row in rows) == sorted(
        ["question", *["MCP send tools/call add", "add", "inside the handler"] * 3]
    )
    assert len({row["trace_id"] for row in rows}) == 1
    assert {row["user_id"] for row in rows} == {"ada"}
    by_id = {row["observation_id"]: row["name"] for row in rows}
    parents = {row["name"]: by_id.get(row["parent_observation_id"]) for row in rows}
    assert parents == {
        "question": None,
        "MCP send tools/call add": "question",
        "add": "MCP send tools/call add",
        "inside the handler": "add",
    }

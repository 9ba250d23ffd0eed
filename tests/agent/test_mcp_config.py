"""Tool servers named in a file: found, read, and connected to over both transports."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import StdioServerParameters
from mcp.server.mcpserver import MCPServer
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from research_kit.agent.catalog import configured_servers, list_tool_states
from research_kit.agent.connection import HttpTarget
from research_kit.agent.mcp_config import ConfiguredServer, read_mcp_config
from research_kit.agent.mcp_file import find_mcp_config
from research_kit.agent.papers import is_papers
from research_kit.agent.tools import ToolServer
from research_kit.errors import ConfigError, ToolError
from research_kit.trust import trust_file

SCRIPT = str(Path(__file__).with_name("stdio_server.py"))


def read(path: Path, servers: Any, **environ: str) -> dict[str, ConfiguredServer]:
    path.write_text(json.dumps({"mcpServers": servers}))
    trust_file(path, path.read_bytes())
    return {server.name: server for server in read_mcp_config(path, environ=environ)}


def test_nearest_file_above_is_found(tmp_path: Path) -> None:
    """The nearest folder wins, and the hidden name within a folder."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for path in (tmp_path / ".mcp.json", tmp_path / "a" / "mcp.json"):
        path.touch()
    assert find_mcp_config(inner) == tmp_path / "a" / "mcp.json"
    (tmp_path / "a" / ".mcp.json").touch()
    assert find_mcp_config(inner) == tmp_path / "a" / ".mcp.json"


def test_variables_are_expanded(tmp_path: Path) -> None:
    """Variables and their defaults are replaced everywhere; a folder is relative to the file."""
    servers = read(
        tmp_path / "mcp.json",
        {
            "program": {
                "command": "${TOOL}",
                "args": ["--level=${LEVEL:-low}"],
                "env": {"KEY": "${KEY}"},
                "cwd": "sub",
            },
            "web": {"url": "http://${HOST:-localhost}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
        },
        TOOL="python",
        KEY="k1",
        LEVEL="",
    )
    assert servers["program"].target == StdioServerParameters(
        command="python", args=["--level=low"], env={"KEY": "k1"}, cwd=tmp_path / "sub"
    )
    assert servers["web"].target == HttpTarget(
        url="http://localhost/mcp", headers={"Authorization": "Bearer k1"}
    )
    assert "k1" not in repr(servers["web"])


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"command": "x", "env": {"KEY": "${ABSENT}"}}, r"'bad'.*variable ABSENT is not set"),
        ({"command": "x", "url": "http://y"}, "either 'command' or 'url'"),
        ("x", "either 'command' or 'url'"),
        ({"command": ""}, "'command' must be a string"),
        ({"command": "x", "args": "y"}, "'args' must be a list"),
        ({"url": "ftp://y"}, "must begin with http://"),
        ({"url": "http://y", "headers": {"n": 1}}, "'headers' must be an object of strings"),
    ],
)
def test_broken_server_does_not_stop_the_others(tmp_path: Path, entry: Any, problem: str) -> None:
    """A server that cannot be used says why; the one beside it is read."""
    servers = read(tmp_path / "mcp.json", {"bad": entry, "good": {"command": "x"}})
    assert servers["bad"].target is None
    assert re.search(problem, servers["bad"].problem or ""), servers["bad"].problem
    assert servers["good"].problem is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"mcpServers": {,}\n}', r"mcp\.json, line 2, is not JSON"),
        ("[]", "holds a list"),
        ('{"servers": {}}', "no object 'mcpServers'"),
    ],
)
def test_broken_file_names_itself_and_the_line(tmp_path: Path, text: str, message: str) -> None:
    """A file that cannot be read as configuration is an error with its place."""
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mcp_config(path)


def test_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """A path without a file is named."""
    with pytest.raises(ConfigError, match=r"Cannot read .*mcp\.json"):
        read_mcp_config(tmp_path / "mcp.json")


def test_program_of_the_file_is_started(tmp_path: Path) -> None:
    """A server with a command is started and called."""
    target = read(tmp_path / "mcp.json", {"p": {"command": sys.executable, "args": [SCRIPT]}})["p"].target
    assert target is not None
    server = ToolServer("p", target)
    assert server.call_tool("add", {"a": 1, "b": 2}).text == "3"
    server.close()


def guarded(app: ASGIApp) -> ASGIApp:
    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"x-key", b"open") not in scope["headers"]:
            await PlainTextResponse("no key", 401)(scope, receive, send)
            return
        await app(scope, receive, send)

    return check


@pytest.fixture
def guarded_url() -> Iterator[str]:
    """A streamable HTTP server that answers only requests with the right header."""
    web: MCPServer[None] = MCPServer("web")

    @web.tool()
    def double(x: int) -> int:
        return 2 * x

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(guarded(web.streamable_http_app()), log_level="error"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        server.should_exit = True
        thread.join(30)


def test_headers_reach_an_http_server(tmp_path: Path, guarded_url: str) -> None:
    """A server behind a header is called with it, and refuses without it."""
    servers = read(
        tmp_path / "mcp.json",
        {"with": {"url": guarded_url, "headers": {"X-Key": "${K}"}}, "without": {"url": guarded_url}},
        K="open",
    )
    assert servers["with"].target is not None
    server = ToolServer("with", servers["with"].target)
    assert server.call_tool("double", {"x": 4}).text == "8"
    server.close()
    assert servers["without"].target is not None
    with pytest.raises(ToolError, match="'without'"):
        ToolServer("without", servers["without"].target).list_tools()


def test_states_of_configured_servers(tmp_path: Path) -> None:
    """Connected, failed and wrongly written servers are listed side by side, with what asks first."""
    read(
        tmp_path / "mcp.json",
        {
            "good": {"command": sys.executable, "args": [SCRIPT]},
            "fails": {"command": str(tmp_path / "no-such-program")},
            "wrong": {},
        },
    )
    servers, wrong = configured_servers(tmp_path)
    good, fails = list_tool_states(servers)
    assert good.problem is None
    asking = {tool.name for tool in good.tools if tool.needs_approval}
    assert asking == {"crash", "write"}
    assert good.log_path is not None
    assert good.log_path.is_file()
    assert "no-such-program" in (fails.problem or "")
    assert [(state.name, state.tools) for state in wrong] == [("wrong", ())]
    for server in servers:
        server.close()


def test_own_command_is_this_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`research-kit` in the file needs no PATH, reads folders relative to the file, and has our settings."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Title\nKrill is small.")
    entry = {"command": "research-kit", "args": ["papers", "docs"], "env": {"RESEARCH_KIT_USER": "ann"}}
    cache = str(tmp_path / "cache")
    server = read(tmp_path / "mcp.json", {"papers": entry}, RESEARCH_KIT_CACHE_DIR=cache, SECRET="x")[
        "papers"
    ]
    assert isinstance(server.target, StdioServerParameters)
    assert server.target.command == sys.executable
    assert server.target.env == {"RESEARCH_KIT_CACHE_DIR": cache, "RESEARCH_KIT_USER": "ann"}
    monkeypatch.setenv("PATH", "")
    documents = ToolServer("papers", server.target)
    assert is_papers(documents)
    assert not is_papers(ToolServer("web", "http://127.0.0.1:9/mcp"))
    assert documents.call_tool("list_documents").text == "a.md (1 passages)"
    documents.close()

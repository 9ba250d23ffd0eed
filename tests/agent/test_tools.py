"""Tool servers against a real MCP server in another process and in memory."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mcp import StdioServerParameters
from mcp.server.mcpserver import MCPServer

from research_kit.agent.loop import agent_loop
from research_kit.agent.tools import ToolServer
from research_kit.errors import ConfigError, ToolError

SCRIPT = str(Path(__file__).with_name("stdio_server.py"))


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


@pytest.fixture
def practice() -> Iterator[ToolServer]:
    server = ToolServer(
        "practice", StdioServerParameters(command=sys.executable, args=[SCRIPT]), timeout_s=20
    )
    yield server
    server.close()


def test_stdio_server_lists_and_calls(practice: ToolServer) -> None:
    """A program's tools are listed, called, and their failures are outcomes."""
    assert "add" in [tool.name for tool in practice.list_tools()]
    outcome = practice.call_tool("add", {"a": 2, "b": 3})
    assert (outcome.text, outcome.structured, outcome.is_error) == ("5", {"result": 5}, False)
    failure = practice.call_tool("fail")
    assert failure.is_error
    assert "the drawer is empty" in failure.text
    wrong = practice.call_tool("add", {"a": "two"})
    assert wrong.is_error


def test_connection_is_kept_between_calls(practice: ToolServer) -> None:
    """The program is started once, not per call."""
    assert practice.call_tool("process_id").text == practice.call_tool("process_id").text


def test_server_killed_while_idle_is_started_again(practice: ToolServer) -> None:
    """A program that died between two calls is started again without the caller noticing."""
    first = practice.call_tool("process_id").text
    os.kill(int(first), signal.SIGKILL)
    assert practice.call_tool("process_id").text not in ("", first)


def test_crash_during_a_read_only_call_is_repeated(practice: ToolServer, tmp_path: Path) -> None:
    """A read-only call whose server crashed is sent again to a new server."""
    marker = tmp_path / "crash"
    marker.touch()
    assert practice.call_tool("crash_once", {"marker": str(marker)}).text == "alive"


def test_crash_during_another_call_is_an_error_and_the_next_call_works(practice: ToolServer) -> None:
    """A call that may have taken effect is not repeated; the connection heals afterwards."""
    with pytest.raises(ToolError, match=r"'crash'.*'practice'.*unknown whether the call took effect"):
        practice.call_tool("crash")
    assert practice.call_tool("add", {"a": 1, "b": 1}).text == "2"


async def test_calls_side_by_side_survive_a_crash(practice: ToolServer, tmp_path: Path) -> None:
    """Calls that were under way when the server crashed all reach the next one."""
    marker = tmp_path / "crash"
    marker.touch()
    await practice.alist_tools()
    calls = [practice.acall_tool("crash_once", {"marker": str(marker)}) for _ in range(8)]
    assert {outcome.text for outcome in await asyncio.gather(*calls)} == {"alive"}


def test_unknown_tool_names_the_nearest(practice: ToolServer) -> None:
    """A misspelt tool name is answered with the one that was meant."""
    with pytest.raises(ToolError, match=r"no tool 'ad'.*Did you mean 'add'"):
        practice.call_tool("ad")


def test_call_takes_no_longer_than_its_timeout(tmp_path: Path) -> None:
    """A tool that does not answer is given up and told to stop."""
    target = StdioServerParameters(command=sys.executable, args=[SCRIPT])
    server = ToolServer("practice", target, timeout_s=4)
    server.list_tools()
    marker = tmp_path / "cancelled"
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"no answer within 4 s"):
        server.call_tool("wait_until_cancelled", {"marker": str(marker)})
    assert time.monotonic() - started < 6
    wait_until(marker.exists)
    server.close()


async def test_cancelling_a_call_reaches_the_server(practice: ToolServer, tmp_path: Path) -> None:
    """Cancelling the awaiting task cancels the tool in the other process."""
    marker = tmp_path / "cancelled"
    await practice.alist_tools()
    task = asyncio.create_task(practice.acall_tool("wait_until_cancelled", {"marker": str(marker)}))
    await asyncio.to_thread(wait_until, marker.with_suffix(".started").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until, marker.exists)
    assert (await practice.acall_tool("add", {"a": 1, "b": 2})).text == "3"


def test_error_output_goes_to_a_file(practice: ToolServer, capfd: pytest.CaptureFixture[str]) -> None:
    """What a program writes to standard error does not reach the notebook."""
    practice.call_tool("say_on_stderr", {"text": "a complaint"})
    wait_until(lambda: "a complaint" in practice.log_path.read_text())
    assert "a complaint" not in capfd.readouterr().err


def test_error_output_outlives_a_crash(practice: ToolServer, tmp_path: Path) -> None:
    """What a program said before it crashed is still in the log after it was started again."""
    marker = tmp_path / "marker"
    practice.call_tool("say_on_stderr", {"text": "last words"})
    marker.touch()
    assert practice.call_tool("crash_once", {"marker": str(marker)}).text == "alive"
    first, _, second = practice.log_path.read_text().rpartition("--- started")
    assert "last words" in first
    assert "last words" not in second


def test_missing_program_says_which(tmp_path: Path) -> None:
    """A program that does not exist is named in the error."""
    server = ToolServer("absent", StdioServerParameters(command=str(tmp_path / "no-such-program")))
    with pytest.raises(ToolError, match=r"'absent'.*no-such-program"):
        server.list_tools()


def test_program_that_ends_at_once_shows_its_error_output() -> None:
    """A program that fails at start is reported with the end of its error output."""
    target = StdioServerParameters(command=sys.executable, args=["-c", "raise SystemExit('no licence')"])
    with pytest.raises(ToolError, match=r"Cannot connect.*no licence"):
        ToolServer("broken", target, timeout_s=20).list_tools()


def test_silent_program_is_given_up(tmp_path: Path) -> None:
    """A program that never speaks MCP is given up after the timeout."""
    target = StdioServerParameters(command=sys.executable, args=["-c", "import time; time.sleep(60)"])
    with pytest.raises(ToolError, match=r"no answer within 1 s"):
        ToolServer("silent", target, timeout_s=1).list_tools()


@pytest.mark.parametrize("target", ["localhost:8000", "", "ftp://x"])
def test_address_without_scheme_is_refused(target: str) -> None:
    """A target that is no web address is refused before anything is connected."""
    with pytest.raises(ConfigError, match="not a web address"):
        ToolServer("web", target)


def test_unreachable_address_is_a_tool_error() -> None:
    """A server that is not there gives an error with its address."""
    with pytest.raises(ToolError, match=r"127\.0\.0\.1:9/mcp"):
        ToolServer("web", "http://127.0.0.1:9/mcp", timeout_s=10).list_tools()


def test_in_memory_server_and_timeout() -> None:
    """An in-memory server is called the same way, and has the same timeout."""
    memory: MCPServer[None] = MCPServer("memory")

    @memory.tool()
    async def wait() -> str:
        await asyncio.Event().wait()
        return ""

    @memory.tool()
    def double(x: int) -> int:
        return 2 * x

    server = ToolServer("memory", memory, timeout_s=0.5)
    assert server.call_tool("double", {"x": 4}).text == "8"
    with pytest.raises(ToolError, match=r"'wait'.*no answer within 0.5 s"):
        server.call_tool("wait")
    assert server.call_tool("double", {"x": 5}).text == "10"
    server.close()


def test_closed_server_opens_again(practice: ToolServer) -> None:
    """Closing ends the program; the next call starts one."""
    first = practice.call_tool("process_id").text
    practice.close()
    wait_until(lambda: not Path(f"/proc/{first}").exists() if sys.platform == "linux" else True)
    assert practice.call_tool("process_id").text != first


def test_waiting_on_the_loop_thread_is_refused(practice: ToolServer) -> None:
    """A blocking call on the loop's own thread raises instead of waiting for itself."""

    async def misuse() -> None:
        practice.list_tools()

    with pytest.raises(Exception, match="agent loop's own thread"):
        agent_loop().run(misuse())


def test_server_that_nobody_holds_closes_its_program(caplog: pytest.LogCaptureFixture) -> None:
    """A tool server that was used in passing leaves no program and no complaint of asyncio behind."""
    server = ToolServer("passing", StdioServerParameters(command=sys.executable, args=[SCRIPT]))
    server.list_tools()
    children = psutil.Process().children(recursive=True)
    running = [child for child in children if SCRIPT in child.cmdline()]
    assert running
    del server
    gc.collect()
    _, left = psutil.wait_procs(running, timeout=20)
    assert left == []
    assert "destroyed" not in caplog.text

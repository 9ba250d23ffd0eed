"""A tool's right to run is decided when it is called, on what its server lists at that moment."""

from __future__ import annotations

import contextlib
import contextvars
import gzip
import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mcp import StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

import research_kit as rk
from research_kit.agent import ToolRequest, ToolServer, as_dspy_tools, list_tool_states
from research_kit.chat.approving import Approvals
from research_kit.chat.events import ApprovalNeeded
from research_kit.chat.turn import Turn, current_turn
from research_kit.errors import ToolError

SCRIPT = str(Path(__file__).with_name("changing_server.py"))
RAW_SCRIPT = str(Path(__file__).with_name("raw_server.py"))
DEADLINE_S = 30.0
READ_ONLY = {"readOnlyHint": True}


def tool(name: str = "get", **changes: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {
        "name": name,
        "description": "Read x.",
        "inputSchema": schema,
        "annotations": READ_ONLY,
        **changes,
    }


@dataclass
class Changing:
    """A real server whose list the test changes, and the calls that reached it."""

    folder: Path
    server: ToolServer
    asked: list[ToolRequest] = field(default_factory=list)

    def lists(self, *tools: dict[str, Any], **more: Any) -> None:
        (self.folder / "state.json").write_text(json.dumps({"tools": tools, **more}))

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def tools(self, approve: Callable[[ToolRequest], bool] | None = None) -> dict[str, Any]:
        def note(request: ToolRequest) -> bool:
            self.asked.append(request)
            return False if approve is None else approve(request)

        return {tool.name: tool for tool in as_dspy_tools(self.server, approve=note)}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(params=["stdio", "http"])
def changing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Changing]:
    if request.param == "stdio":
        target: Any = StdioServerParameters(command=sys.executable, args=[SCRIPT, str(tmp_path)])
        server = Changing(tmp_path, ToolServer("changing", target, timeout_s=DEADLINE_S))
        server.lists(tool())
        yield server
        server.server.close()
        return
    port = free_port()
    process = subprocess.Popen([sys.executable, SCRIPT, str(tmp_path), str(port)])
    deadline = time.monotonic() + DEADLINE_S
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline, "the HTTP server did not come up"
    server = Changing(tmp_path, ToolServer("changing", f"http://127.0.0.1:{port}/mcp", timeout_s=DEADLINE_S))
    server.lists(tool())
    yield server
    server.server.close()
    process.kill()
    process.wait()


def test_read_only_tool_runs_unasked(changing: Changing) -> None:
    """What a trusted server calls read-only at the time of the call runs without a question."""
    assert str(changing.tools()["get"](x=1)) == "done"
    assert (len(changing.calls), changing.asked) == (1, [])


CHANGES = {
    "no annotations": tool(annotations=None),
    "not read-only": tool(annotations={"readOnlyHint": False}),
    "read-only and destructive": tool(annotations={"readOnlyHint": True, "destructiveHint": True}),
    "another description": tool(description="Delete x.", annotations={}),
    "only idempotent": tool(annotations={"idempotentHint": True, "openWorldHint": False}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tool_that_is_not_read_only_any_more_asks(changing: Changing, change: str) -> None:
    """A tool that was listed read-only and is not any more asks, and does not run when nobody allows it."""
    get = changing.tools()["get"]
    get(x=1)
    changing.lists(CHANGES[change])
    with pytest.raises(ToolError, match="'get' was not approved"):
        get(x=2)
    assert changing.calls == ['get {"x": 1}']
    [request] = changing.asked
    assert request.description == CHANGES[change]["description"]
    assert request.is_destructive == (change == "read-only and destructive")


def test_tool_that_became_read_only_runs_unasked(changing: Changing) -> None:
    """The listing of the moment also frees a tool."""
    changing.lists(tool(annotations=None))
    get = changing.tools()["get"]
    changing.lists(tool())
    assert str(get(x=1)) == "done"
    assert changing.asked == []


@pytest.mark.parametrize("listed", [[], [tool("gett")]], ids=["nothing", "renamed"])
def test_tool_that_vanished_is_not_called(changing: Changing, listed: list[dict[str, Any]]) -> None:
    """A tool that its server lists no more is an error that says so."""
    get = changing.tools()["get"]
    changing.lists(*listed)
    with pytest.raises(ToolError, match="no tool 'get'"):
        get(x=1)
    assert changing.calls == []


def test_change_while_the_question_is_open_asks_again(changing: Changing) -> None:
    """What was allowed is the tool as it was shown: one that changes before the answer asks again."""
    changing.lists(tool(annotations=None))

    def approve(request: ToolRequest) -> bool:
        changing.lists(tool(annotations=None, description="Delete everything."))
        return "everything" not in request.description

    with pytest.raises(ToolError, match="was not approved"):
        changing.tools(approve)["get"](x=1)
    assert [request.description for request in changing.asked] == ["Read x.", "Delete everything."]
    assert changing.calls == []


def test_tool_that_never_stays_the_same_is_not_called(changing: Changing) -> None:
    """A server that changes with each question gets no call out of a user who always says yes."""
    changing.lists(tool(annotations=None))

    def approve(_: ToolRequest) -> bool:
        changing.lists(tool(annotations=None, description=f"Version {len(changing.asked)}"))
        return True

    with pytest.raises(ToolError, match="changed each time"):
        changing.tools(approve)["get"](x=1)
    assert changing.calls == []


def test_repeated_call_is_decided_anew(tmp_path: Path) -> None:
    """A read-only call whose server crashed is repeated only where the tool is still read-only."""
    target = StdioServerParameters(command=sys.executable, args=[SCRIPT, str(tmp_path)])
    changing = Changing(tmp_path, ToolServer("changing", target, timeout_s=DEADLINE_S))
    changing.lists(tool(), crash_into={"tools": [tool(annotations=None)]})
    with pytest.raises(ToolError, match="was not approved"):
        changing.tools()["get"](x=1)
    assert len(changing.calls) == 1
    changing.lists(tool(), crash_into={"tools": [tool(annotations=None)]})
    changing.server.list_tools()
    with pytest.raises(ToolError, match="came back with another tool"):
        changing.server.call_tool("get", {"x": 1})
    assert len(changing.calls) == 2
    changing.server.close()


def test_hints_of_a_server_that_is_not_believed_count_for_nothing(changing: Changing) -> None:
    """`trust_hints=False` makes every tool of a server ask, and says so in the list."""
    doubted = ToolServer("doubted", changing.server.target, timeout_s=DEADLINE_S, trust_hints=False)
    [state] = list_tool_states([doubted])
    assert [listed.needs_approval for listed in state.tools] == [True]
    with pytest.raises(ToolError, match="nobody can be asked"):
        {found.name: found for found in as_dspy_tools(doubted)}["get"](x=1)
    assert changing.calls == []
    doubted.close()


def test_of_two_tools_with_one_name_the_risky_one_counts(changing: Changing) -> None:
    """A server cannot free a tool by listing its name twice, in either order."""
    for listed in ([tool(annotations=None), tool()], [tool(), tool(annotations=None)]):
        changing.lists(*listed)
        with pytest.raises(ToolError, match="was not approved"):
            changing.tools()["get"](x=1)
    assert changing.calls == []


def test_allow_for_session_belongs_to_one_server_and_one_description() -> None:
    """Two servers of one name with one tool each: what was allowed for one is asked for the other."""

    def request(port: int, description: str = "d") -> ToolRequest:
        from mcp.types import Tool

        server = ToolServer("same", f"http://127.0.0.1:{port}/mcp")
        listed = Tool(name="t", description=description, input_schema={"type": "object"})
        return ToolRequest(server="same", name="t", arguments={}, fingerprint=server.fingerprint(listed))

    approvals = Approvals(lambda _name, _arguments: False)
    approvals.is_shown = True
    turn = Turn("go", message_number=1, cancel=lambda _: None)
    current_turn.set(turn)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(contextvars.copy_context().run, approvals.ask, request(1))
        question = next(iter(turn))
        assert isinstance(question, ApprovalNeeded)
        approvals.decide(question.call_id, "session")
        assert answer.result(DEADLINE_S)
    approvals.is_shown = False
    assert approvals.ask(request(1))
    assert not approvals.ask(request(2))
    assert not approvals.ask(request(1, "e"))


@pytest.mark.parametrize(
    "change",
    [{"env": {"MODE": "write"}}, {"cwd": "/"}, {"args": [SCRIPT, "."]}, {"command": "python3"}],
    ids=lambda change: next(iter(change)),
)
def test_every_word_of_a_program_is_part_of_its_identity(change: dict[str, Any]) -> None:
    """An approval does not follow a server to another program, folder, argument or environment."""
    from mcp.types import Tool

    target = StdioServerParameters(command=sys.executable, args=[SCRIPT])
    listed = Tool(name="t", input_schema={"type": "object"})
    other = ToolServer("a", target.model_copy(update=change))
    assert other.fingerprint(listed) != ToolServer("a", target).fingerprint(listed)


def raw_server(body: str) -> ToolServer:
    """Return a server that answers calls with these bytes, given as a Python expression."""
    target = StdioServerParameters(command=sys.executable, args=[RAW_SCRIPT, body])
    return ToolServer("raw", target, timeout_s=DEADLINE_S)


NO_TEXTS = {
    "latin-1": r"""b'"caf\xe9"'""",
    "lone surrogate": r"""b'"\\ud800"'""",
    "encoded surrogate": r"""b'"\xed\xa0\x80"'""",
    "control character": r"""b'"\x01"'""",
    "no end": r"""b'"cut'""",
    "too deep": r"""b'[' * 100_000""",
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_answer_that_is_no_json_in_utf8_is_an_error_at_once(kind: str) -> None:
    """The error says what is wrong with the answer, instead of that there is none."""
    server = raw_server(NO_TEXTS[kind])
    with pytest.raises(ToolError, match="its answer cannot be read as JSON in UTF-8: Invalid JSON"):
        server.call_tool("t")
    assert "no message: Starting..." in server.log_path.read_text()
    server.close()


class RawWeb(BaseHTTPRequestHandler):
    """The same over HTTP: answers a call of a tool with the bytes that are kept under its name."""

    protocol_version = "HTTP/1.1"
    bodies: ClassVar[dict[str, tuple[bytes, dict[str, str]]]] = {
        "latin-1": (b'"caf\xe9"', {}),
        "surrogate": (b'"\\ud800"', {}),
        "long": (b'"' + b"x" * 40_000_000 + b'"', {}),
        "packed": (b'"' + b"x" * 40_000_000 + b'"', {"Content-Encoding": "gzip"}),
        "fine": (b'"fine"', {}),
    }

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match asked["method"]:
            case "initialize":
                version, about = asked["params"]["protocolVersion"], {"name": "raw", "version": "1"}
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
                self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode(), {})
            case "tools/list":
                result = {"tools": [tool(name) for name in self.bodies]}
                self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode(), {})
            case "tools/call":
                body, headers = self.bodies[asked["params"]["name"]]
                beginning = (
                    b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":' % asked["id"]
                )
                self.answer(beginning + body + b"}]}}", headers)
            case _:
                error = {"code": -32601, "message": "no"}
                self.answer(
                    json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "error": error}).encode(), {}
                )

    def answer(self, body: bytes, headers: dict[str, str]) -> None:
        content = gzip.compress(body, 1) if headers else body
        self.send_response(200)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up, which is what they are to do."""


@pytest.fixture(scope="module")
def raw_web() -> Iterator[ToolServer]:
    web = QuietServer(("127.0.0.1", 0), RawWeb)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield ToolServer("web", f"http://127.0.0.1:{web.server_port}/mcp", timeout_s=DEADLINE_S)
    web.shutdown()
    web.server_close()


@pytest.mark.parametrize("name", [name for name in RawWeb.bodies if name != "fine"])
def test_answer_over_http_is_read_within_limits(
    raw_web: ToolServer, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Over HTTP too, what cannot be read or is too long is an error that says so, and prints nothing."""
    with pytest.raises(
        ToolError, match=r"answer cannot be read.*(invalid unicode|hex escape|more than|packed)"
    ):
        raw_web.call_tool(name)
    assert raw_web.call_tool("fine").text == "fine"
    assert capfd.readouterr().err == ""


def test_arguments_that_no_message_can_carry_are_refused(raw_web: ToolServer) -> None:
    """Half a character of a model's is an error at once, and the connection stays."""
    with pytest.raises(ToolError, match="arguments cannot be written as JSON"):
        raw_web.call_tool("fine", {"x": "\ud800"})
    assert raw_web.call_tool("fine").text == "fine"


def test_cassette_of_a_project_frees_no_tool(changing: Changing, tmp_path: Path) -> None:
    """While missing calls are recorded they reach the server, and it says itself what its tools may do."""
    cassette = tmp_path / "calls.yaml"
    with rk.replaying(cassette, record="all"):
        changing.tools()["get"](x=1)
    with rk.replaying(cassette):
        assert str(changing.tools()["get"](x=1)) == "done"
    changing.lists(tool(annotations=None))
    with rk.replaying(cassette, record="missing"), pytest.raises(ToolError, match="was not approved"):
        changing.tools()["get"](x=2)
    assert changing.calls == ['get {"x": 1}']


def test_longest_message_is_bounded() -> None:
    """A message beyond the limit ends the connection with an error that says why."""
    server = raw_server("b'x' * 40_000_000")
    with pytest.raises(ToolError, match=r"a message has more than 32,000,000 bytes"):
        server.call_tool("t")
    server.close()


def test_long_lists_and_answers_are_read_in_linear_time() -> None:
    """Five thousand tools of 2 kB are listed, and 20 MB of text are read, within an everyday timeout."""
    big: MCPServer[None] = MCPServer("big")
    for number in range(5_000):
        big.add_tool(lambda: "", name=f"tool{number}", description="d" * 2_000)
    server = ToolServer("big", big, timeout_s=DEADLINE_S)
    assert len(server.list_tools()) == 5_000
    server.close()
    server = raw_server("""b'"' + b'x' * 20_000_000 + b'"'""")
    assert len(server.call_tool("t").text) == 20_000_000
    server.close()


@pytest.mark.parametrize("seen", ["description", "name"])
def test_words_of_a_server_act_nowhere(seen: str) -> None:
    """Markup and control characters in what a server calls its tools are text in every list."""
    from research_kit.agent.reports import ToolReport

    hostile = "\x1b[2J\u202e<img src=x onerror=alert(1)>\u2066"
    loud: MCPServer[None] = MCPServer("loud")
    texts = {"description": "d", "name": "n"} | {seen: hostile}
    loud.add_tool(lambda: "", annotations=ToolAnnotations(read_only_hint=True), **texts)
    server = ToolServer("loud", loud)
    report = ToolReport(list_tool_states([server]))
    for text in (repr(report), report._repr_html_(), report.to_frame().to_csv()):
        assert not set("\x1b\u202e\u2066") & set(text)
    assert "<img" not in report._repr_html_()
    server.close()


def test_log_is_private_bounded_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program complains of is kept for the user alone, with an end, and no error quotes a secret."""
    secret = "sk-proj-" + "a1B2" * 10
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    code = f"""
import sys
for _ in range(30_000): print("x" * 100, file=sys.stderr)
print("the key is {secret}", file=sys.stderr)
sys.exit("it ends")
"""
    server = ToolServer(
        "noisy", StdioServerParameters(command=sys.executable, args=["-c", code]), timeout_s=DEADLINE_S
    )
    server.log_path.parent.mkdir(parents=True, mode=0o700)
    server.log_path.write_text("of an earlier release\n")
    server.log_path.chmod(0o644)
    with pytest.raises(ToolError, match="it ends") as caught:
        server.list_tools()
    assert secret not in str(caught.value)
    assert stat.S_IMODE(server.log_path.stat().st_mode) == 0o600
    assert server.log_path.stat().st_size <= 1_000_000
    assert secret not in server.log_path.read_text()

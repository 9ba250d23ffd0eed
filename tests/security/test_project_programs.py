"""A project's file starts, contacts and receives nothing before the user has trusted just this content."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dspy
import psutil
import pytest
from hostile import hostile_texts
from kernels import end_kernel, start_kernel
from scripted_lm import adapter_reply, running_lm

import research_kit as rk
from research_kit.agent import configured_servers, find_trust_question
from research_kit.agent.mcp_file import load_mcp_file
from research_kit.agent.server_plans import plan_servers
from research_kit.chat.engine import Conversation
from research_kit.chat.events import MessageFinished, Notice, ToolFinished
from research_kit.chat.tool_trust import ToolTrust
from research_kit.errors import ConfigError
from research_kit.trust import forget_trust, is_trusted, list_trusted, trust_file

SERVER = str(Path(__file__).parents[1] / "agent" / "stdio_server.py")
KEY = "sk-proj-" + "a1B2" * 10
ASKED_AGAIN = "not trusted"


class Clone:
    """A stranger's project: whatever is started leaves a file, whatever is contacted a request."""

    def __init__(self, root: Path, listener: ThreadingHTTPServer, requests: list[dict[str, str]]) -> None:
        self.root = root
        self.address = f"http://127.0.0.1:{listener.server_port}"
        self.requests = requests
        self.started = root.parent / "started"
        self.started.mkdir(exist_ok=True)

    @property
    def file(self) -> Path:
        return self.root / "mcp.json"

    def write(self, servers: dict[str, Any], name: str = "mcp.json") -> Path:
        path = self.root / name
        path.write_text(json.dumps({"mcpServers": servers}))
        return path

    def program(self, name: str = "program") -> dict[str, Any]:
        """Return an entry that leaves what it was given in a file, and then serves."""
        script = f'printf %s "$GIVEN" > {self.started / name}; exec {sys.executable} {SERVER}'
        return {"command": "sh", "args": ["-c", script], "env": {"GIVEN": "${OPENAI_API_KEY}"}}

    def every_kind(self) -> dict[str, Any]:
        (self.root / "run.sh").write_text(f"#!/bin/sh\ntouch {self.started / 'relative'}\n")
        (self.root / "run.sh").chmod(0o755)
        touch = str(self.started / "python")
        return {
            "program": self.program(),
            "relative": {"command": "./run.sh"},
            "python": {"command": sys.executable, "args": ["-c", f"open({touch!r}, 'w')"], "cwd": ".."},
            "own": {"command": "research-kit", "args": ["papers", "."]},
            "header": {"url": f"{self.address}/mcp", "headers": {"X-Key": "${OPENAI_API_KEY}"}},
            "query": {"url": f"{self.address}/mcp?key=${{OPENAI_API_KEY}}"},
            "host": {"url": "${WEB:-" + self.address + "}/mcp"},
        }

    def left(self) -> list[str]:
        return sorted(path.name for path in self.started.iterdir())


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    requests: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append({"path": self.path, **self.headers})
            self.send_error(404)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    root = tmp_path / "clone"
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(root / "notebooks")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LANGFUSE_TRACING_ENABLED", "false")
    clone = Clone(root, listener, requests)
    yield clone
    for server in configured_servers(root)[0]:
        server.close()
    listener.shutdown()
    listener.server_close()


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "research_kit.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def use_tools() -> str:
    return repr(rk.tools())


def use_doctor() -> str:
    return command("doctor").stdout


def use_conversation() -> str:
    with running_lm() as server:
        finish = adapter_reply(next_thought="I know.", next_tool_name="finish", next_tool_args="{}")
        server.script(finish, adapter_reply(reasoning="I know.", answer="done"))
        lm = dspy.LM("openai/x", api_base=server.base_url, api_key="x", cache=False, num_retries=0)
        events = list(Conversation(lm=lm).send("go"))
    assert isinstance(events[-1], MessageFinished)
    return "\n".join(event.text for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("name", ["mcp.json", ".mcp.json"])
@pytest.mark.parametrize("use", [use_tools, use_doctor, use_conversation])
def test_untrusted_project_starts_and_gets_nothing(clone: Clone, use: Callable[[], str], name: str) -> None:
    """Whatever looks at the tools says what is not trusted and how to allow it; nothing runs or leaves."""
    clone.write(clone.every_kind(), name)
    told = use()
    assert ASKED_AGAIN in told or "not trusted it" in told
    assert f"research-kit trust {clone.root / name}" in told
    assert KEY not in told
    assert (clone.left(), clone.requests) == ([], [])


def test_kernel_in_an_untrusted_project_starts_and_gets_nothing(clone: Clone, tmp_path: Path) -> None:
    """Loading the extension, the status, the panel and the list of tools in a real kernel leave no trace."""
    clone.write(clone.every_kind())
    kernel = start_kernel({"RESEARCH_KIT_LM": "openai/none"}, clone.root / "notebooks")
    try:
        kernel.run("%load_ext research_kit\nimport research_kit as rk")
        kernel.run("rk.status(); panel = rk.chat(); panel")
        assert "not trusted" in kernel.run("print(rk.tools())")
        assert kernel.run("print(panel.status['trust']['servers'][0]['name'])").strip() == "program"
        assert (clone.left(), clone.requests) == ([], [])
        kernel.run(
            "panel.receive({'type': 'trust', 'question_id': panel.status['trust']['question_id'],"
            " 'decision': 'trust'})\nassert panel.status['trust'] is None"
        )
        assert "practice" not in kernel.run("print(rk.tools())")
        assert "program" in clone.left()
    finally:
        end_kernel(kernel)


def test_trusted_file_is_used_and_asked_again_when_it_changed(clone: Clone) -> None:
    """After the word of the user the program runs with its variable; other bytes are another question."""
    path = clone.write({"p": clone.program()})
    trust_file(path, path.read_bytes())
    assert "p: connected" in repr(rk.tools())
    assert (clone.started / "program").read_text() == KEY
    [running] = configured_servers(clone.root)[0]
    process = int(running.call_tool("process_id").text)

    clone.write({"p": clone.program("second")})
    os.kill(process, 0)  # what was trusted runs until somebody looks
    assert ASKED_AGAIN in repr(rk.tools())
    assert clone.left() == ["program"]
    psutil.Process(process).wait(timeout=20)


CHANGES: dict[str, Callable[[Clone], Path]] = {
    "one more blank": lambda clone: _append(clone.file, b" "),
    "a byte order mark": lambda clone: _rewrite(clone.file, b"\xef\xbb\xbf" + clone.file.read_bytes()),
    "a copy in another folder": lambda clone: _copy_to(clone, clone.root / "notebooks" / "mcp.json"),
    "a copy of another name": lambda clone: _copy_to(clone, clone.root / ".mcp.json"),
    "a link from another folder": lambda clone: _link_from(clone, clone.root / "notebooks" / "mcp.json"),
    "a link of another name": lambda clone: _link_from(clone, clone.root / ".mcp.json"),
}


def _append(path: Path, content: bytes) -> Path:
    return _rewrite(path, path.read_bytes() + content)


def _rewrite(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _copy_to(clone: Clone, path: Path) -> Path:
    return _rewrite(path, clone.file.read_bytes())


def _link_from(clone: Clone, path: Path) -> Path:
    path.symlink_to(clone.file)
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_trust_is_for_one_place_and_content(clone: Clone, change: str) -> None:
    """Neither another byte nor the same bytes elsewhere, where relative programs are others, are trusted."""
    path = clone.write(clone.every_kind())
    trust_file(path, path.read_bytes())
    other = CHANGES[change](clone)
    assert ASKED_AGAIN in repr(rk.tools())
    assert (clone.left(), clone.requests) == ([], [])
    question = find_trust_question(Path.cwd())
    assert question is not None
    assert question.file.path == other


def test_file_that_is_replaced_while_it_is_judged_is_not_trusted(clone: Clone) -> None:
    """A yes counts for what was shown; a card of before the change is answered with that."""
    clone.write({"harmless": {"command": "true"}})
    trust = ToolTrust()
    shown = trust.to_wire()
    assert shown is not None
    clone.write({"p": clone.program()})
    trust.decide(shown["question_id"], "trust")
    assert ASKED_AGAIN in repr(rk.tools())
    fresh = trust.to_wire()
    assert fresh is not None
    with pytest.raises(ConfigError, match="has changed since it was shown"):
        trust.decide(shown["question_id"], "trust")
    with pytest.raises(ConfigError, match="'maybe' is not known"):
        trust.decide(fresh["question_id"], "maybe")
    trust.decide(fresh["question_id"], "later")
    assert trust.to_wire() is None
    assert clone.left() == []


def test_panel_of_a_kernel_whose_folder_is_gone_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no folder there is no file, and the panel's status is read all the same."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    trust = ToolTrust()
    assert trust.to_wire() is None
    assert trust.read_state() == ""


def test_conversation_takes_up_what_was_trusted(clone: Clone) -> None:
    """After Trust the tools are there with the next message; when it is taken back they are gone again."""
    clone.write({"p": clone.program()})

    def step(tool: str, **arguments: object) -> Any:
        return adapter_reply(
            next_thought="I look.", next_tool_name=tool, next_tool_args=json.dumps(arguments)
        )

    def answers() -> list[tuple[str, bool]]:
        server.script(step("finish"), adapter_reply(reasoning="I know.", answer="done"))
        events = list(conversation.send("go"))
        assert isinstance(events[-1], MessageFinished), events[-1]
        return [(event.result, event.is_error) for event in events if isinstance(event, ToolFinished)]

    with running_lm() as server:
        lm = dspy.LM("openai/x", api_base=server.base_url, api_key="x", cache=False, num_retries=0)
        conversation = Conversation(lm=lm)
        assert all(result != "5" for result, _ in answers())
        question = conversation.trust.to_wire()
        assert question is not None
        conversation.trust.decide(question["question_id"], "trust")
        server.script(step("add", a=2, b=3))
        assert ("5", False) in answers()
        assert conversation.trust.to_wire() is None
        forget_trust(clone.file)
        assert all(result != "5" for result, _ in answers())
        server.finish()


TRUSTED = {
    "the folder": "{root}",
    "the file": "{root}/mcp.json",
    "a folder above": "{root}/..",
    "among others": "/nowhere:{root}:~/x",
}
UNTRUSTED = {
    "nothing": "",
    "this folder, wherever that is": ".",
    "a relative folder": "clone",
    "a parent": "..",
    "a sibling": "{root}/notebooks",
    "the beginning of a name": "{root}/../clo",
    "another case": "{root}/MCP.JSON",
    "a user who is not there": "~no-such-user/x",
    "a zero byte": "\0{root}",
    "a pattern": "{root}/*",
}


@pytest.mark.parametrize("place", [*TRUSTED, *UNTRUSTED])
def test_variable_names_whole_places(clone: Clone, place: str) -> None:
    """RESEARCH_KIT_TRUST names folders and files by whole paths, and nothing else frees a file."""
    clone.write({"p": clone.program()})
    value = (TRUSTED | UNTRUSTED)[place].format(root=clone.root)
    found = load_mcp_file(clone.file).is_trusted({"RESEARCH_KIT_TRUST": value})
    assert found == (place in TRUSTED)


def test_trusted_folder_does_not_cover_where_its_links_lead(clone: Clone, tmp_path: Path) -> None:
    """A link in a trusted folder to a stranger's folder frees nothing there."""
    clone.write({"p": clone.program()})
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "link").symlink_to(clone.root)
    file = load_mcp_file(trusted / "link" / "mcp.json")
    assert not file.is_trusted({"RESEARCH_KIT_TRUST": str(trusted)})


@pytest.mark.parametrize("is_trusted_itself", [False, True])
def test_environment_file_trusts_nothing(clone: Clone, is_trusted_itself: bool) -> None:
    """A `.env` cannot name what is trusted, even when the user has trusted the `.env`."""
    clone.write({"p": clone.program()})
    settings = clone.root / "notebooks" / ".env"
    settings.write_text(f"RESEARCH_KIT_TRUST={clone.root}\nRESEARCH_KIT_LM=openai/x\n")
    settings.chmod(0o600)
    if is_trusted_itself:
        trust_file(settings, settings.read_bytes())
    code = (
        "import os; from research_kit.session.environment_file import read_environment_file\n"
        "read_environment_file(); import research_kit as rk; print(os.environ['RESEARCH_KIT_LM'], rk.tools())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("openai/x")
    assert ASKED_AGAIN in told
    assert clone.left() == []


def note_of(path: Path) -> Path:
    [note] = (Path(os.environ["XDG_CONFIG_HOME"]) / "research-kit" / "trusted").glob("*.json")
    return note


def test_notes_are_for_the_user_alone(clone: Clone) -> None:
    """Whatever the umask, others can neither read nor write what is trusted."""
    path = clone.write({})
    before = os.umask(0)
    try:
        trust_file(path, path.read_bytes())
    finally:
        os.umask(before)
    assert stat.S_IMODE(note_of(path).stat().st_mode) == 0o600
    assert stat.S_IMODE(note_of(path).parent.stat().st_mode) == 0o700
    assert [file.path for file in list_trusted()] == [path]
    assert forget_trust(path)
    assert not forget_trust(path)
    assert list_trusted() == []


def _by_nobody(note: Path) -> None:
    os.chown(note, 65534, -1)


def _as_link(note: Path) -> None:
    note.rename(note.with_suffix(".kept"))
    note.symlink_to(note.with_suffix(".kept"))


def _as_pipe(note: Path) -> None:
    note.unlink()
    os.mkfifo(note)


def _of_another_path(note: Path) -> None:
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "path": "/elsewhere/mcp.json"}))


FAULTS: dict[str, Callable[[Path], Any]] = {
    "of another user": _by_nobody,
    "writable by others": lambda note: note.chmod(0o666),
    "writable by the group": lambda note: note.chmod(0o620),
    "a link": _as_link,
    "a pipe": _as_pipe,
    "of another path": _of_another_path,
    "half": lambda note: note.write_bytes(note.read_bytes()[:20]),
    "empty": lambda note: note.write_bytes(b""),
    "no UTF-8": lambda note: note.write_bytes(b"\xff\xfe"),
    "too deep": lambda note: note.write_bytes(b"[" * 100_000),
    "a list": lambda note: note.write_text("[]"),
    "numbers": lambda note: note.write_text('{"path": 1, "content": 2}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_note_that_somebody_else_could_have_written_counts_for_nothing(clone: Clone, fault: str) -> None:
    """A broken or planted note is no trust, breaks no other, and is replaced by the user's next word."""
    if fault == "of another user" and os.getuid() != 0:
        pytest.skip("only root can give files away")
    other, path = clone.write({}, ".mcp.json"), clone.write({"p": clone.program()})
    trust_file(path, path.read_bytes())
    FAULTS[fault](note_of(path))
    assert not is_trusted(path, path.read_bytes())
    trust_file(other, other.read_bytes())
    assert is_trusted(other, other.read_bytes())
    trust_file(path, path.read_bytes())
    assert is_trusted(path, path.read_bytes())


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    """What several processes trust at the same moment is all trusted."""
    code = (
        "import sys; from pathlib import Path; from research_kit.trust import trust_file\n"
        "for n in range(25): trust_file(Path(sys.argv[1]) / f'{sys.argv[2]}-{n}', b'x')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert all(is_trusted(tmp_path / f"{n}-{m}", b"x") for n in range(4) for m in range(25))


def test_question_shows_everything_and_no_secret(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would happen is told in whole, by names; no value, no known secret, nothing that acts."""
    literal = "ghp_" + "aB3" * 12
    clone.write(
        {
            "s": {
                "command": "node",
                "args": ["-e", "x()", "--token", literal, "${OPENAI_API_KEY}"],
                "env": {"NODE_OPTIONS": "--require ./evil.js", "K": "${OTHER:-d}"},
                "cwd": "sub",
            }
        }
    )
    monkeypatch.setenv("OTHER", "other-value")
    [plan] = plan_servers(load_mcp_file(clone.file))
    told = "\n".join([plan.name, plan.deed, *plan.details])
    assert plan.deed.startswith("starts node -e 'x()' --token ")
    for part in ("in the folder sub", "OPENAI_API_KEY, OTHER", "sets NODE_OPTIONS, K", "${OPENAI_API_KEY}"):
        assert part in told
    for secret in (KEY, literal, "other-value", "evil.js"):
        assert secret not in told


def hostile_entries() -> dict[str, Any]:
    """Return servers that say hostile things in every place where a file has a text."""
    entries: dict[str, Any] = {}
    for number, text in enumerate(hostile_texts()):
        entries[text] = {"command": "x"}
        entries[f"program {number}"] = {"command": text, "args": [text], "env": {text: "x"}, "cwd": text}
        entries[f"address {number}"] = {"url": text, "headers": {text: "x"}}
    return entries


def test_hostile_words_of_a_file_act_nowhere(clone: Clone) -> None:
    """No text of a file turns a line, moves a cursor or becomes markup where it is shown."""
    clone.write(hostile_entries())
    report = rk.tools()
    plans = plan_servers(load_mcp_file(clone.file))
    planned = "\n".join(line for plan in plans for line in (plan.name, plan.deed, *plan.details))
    for told in (repr(report), planned, command("trust", stdin=subprocess.DEVNULL).stdout, use_doctor()):
        assert not [line for line in told.split("\n") if not line.isprintable()]
        told.encode("utf-8")
    assert "<script" not in report._repr_html_().lower()
    assert "<img" not in report._repr_html_().lower()
    assert clone.left() == []


def test_more_than_can_be_judged_is_not_trusted_by_a_click(clone: Clone) -> None:
    """A command line that hides its end in its length cannot be trusted in the panel, whatever is clicked."""
    clone.write({"p": {"command": "sh", "args": ["-c", f"true {' ' * 20_000}; touch {clone.started / 'x'}"]}})
    trust = ToolTrust()
    shown = trust.to_wire()
    assert shown is not None
    assert "[20001 spaces]" in shown["servers"][0]["deed"]
    clone.write({"p": {"command": "sh", "args": ["-c", f"true {'x' * 20_000}; touch {clone.started / 'x'}"]}})
    shown = trust.to_wire()
    assert shown is not None
    assert (shown["is_whole"], shown["servers"]) == (False, [])
    with pytest.raises(ConfigError, match="too long to be judged here: research-kit trust"):
        trust.decide(shown["question_id"], "trust")


UNREADABLE: dict[str, bytes] = {
    "no JSON": b"{",
    "no UTF-8": b'{"mcpServers": {"\xff": {}}}',
    "a list": b"[]",
    "no servers": b"{}",
    "a long number": b'{"mcpServers": ' + b"1" * 10_000 + b"}",
    "too deep": b'{"mcpServers": {"a": ' + b"[" * 100_000,
    "too long": b" " * 11_000_000 + b"{}",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_file_is_a_state(clone: Clone, kind: str) -> None:
    """A file that cannot be read is told with its reason; there is no question, and no yes."""
    clone.file.write_bytes(UNREADABLE[kind])
    servers, [state] = configured_servers(clone.root)
    assert servers == []
    assert str(clone.file) in str(state.problem)
    assert ToolTrust().to_wire() is None
    assert command("trust", str(clone.file), "--yes").returncode == 2


def test_entry_as_deep_as_json_goes_is_planned(clone: Clone) -> None:
    """An entry nested nearly as deep as JSON is read is shown as what it is: unusable."""
    deep: Any = "${OPENAI_API_KEY}"
    for _ in range(400):
        deep = [deep]
    clone.write({"p": {"command": "x", "args": deep}})
    assert "starts x" in repr(rk.tools())
    trust_file(clone.file, clone.file.read_bytes())
    assert "cannot be used" in repr(rk.tools())


def test_command_shows_before_it_trusts(clone: Clone) -> None:
    """Without a terminal nothing is trusted that was not agreed to; of a `.env` the names are shown."""
    clone.write({"p": clone.program()})
    (clone.root / ".env").write_text(
        f"LANGFUSE_SECRET_KEY={KEY}\nexport RESEARCH_KIT_LM='x'\nPATH=/evil\nLANGFUSE_USER_ID=${{HOME}}\n"
    )
    (clone.root / ".env").chmod(0o600)
    refused = command("trust", str(clone.root), stdin=subprocess.DEVNULL)
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    for told in (
        "p starts sh -c",
        "OPENAI_API_KEY",
        "sets LANGFUSE_SECRET_KEY",
        "sets RESEARCH_KIT_LM",
        "LANGFUSE_USER_ID, with the values of your HOME",
    ):
        assert told in refused.stdout
    assert KEY not in refused.stdout
    assert command("trust", "--list").stdout == ""
    assert command("trust", str(clone.file), "--yes").returncode == 0
    assert f"{clone.file}  (trusted)" in command("trust", "--list").stdout
    assert "trusted as it is" in command("trust", str(clone.file), stdin=subprocess.DEVNULL).stdout
    clone.write({})
    assert "changed since" in command("trust", "--list").stdout
    clone.file.unlink()
    assert "not there any more" in command("trust", "--list").stdout
    assert "forgotten" in command("trust", "--forget", str(clone.file)).stdout
    assert "was not trusted" in command("trust", "--forget", str(clone.file)).stdout
    assert command("trust", "--forget").returncode == 2
    assert command("trust", str(clone.root / "nothing")).returncode == 2
    assert clone.left() == []


SAID = {"y\n": True, "YES\n": True, "n\n": False, "\n": False, "yep\n": False, "\x04": False}


@pytest.mark.parametrize(("said", "is_yes"), SAID.items(), ids=map(repr, SAID))
def test_command_asks_on_a_terminal(clone: Clone, said: str, is_yes: bool) -> None:
    """On a terminal the question is asked, and anything but yes is no."""
    clone.write({"p": clone.program()})
    ours, theirs = pty.openpty()
    os.write(ours, said.encode())
    answer = command("trust", stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert answer.returncode == (0 if is_yes else 1), answer.stderr
    assert is_trusted(clone.file, clone.file.read_bytes()) == is_yes


def test_doctor_masks_what_servers_are_given(clone: Clone) -> None:
    """The lines that go into bug reports hold no key of an argument or address."""
    literal = "ghp_" + "aB3" * 12
    path = clone.write(
        {
            "a": {"command": "sh", "args": ["--key", "${OPENAI_API_KEY}", "--token", literal]},
            "b": {"url": f"{clone.address}/?api_key={literal}"},
        }
    )
    trust_file(path, path.read_bytes())
    told = command("doctor", env={**os.environ, "RESEARCH_KIT_TRUST": "relative/place"}).stdout
    assert "a runs sh" in told
    assert KEY not in told
    assert literal not in told
    assert "RESEARCH_KIT_TRUST names 'relative/place', which counts for nothing" in told


def test_what_init_writes_is_trusted(tmp_path: Path) -> None:
    """The file that the product wrote itself is no question; one that was there is not trusted by it."""
    assert command("init", str(tmp_path / "new")).returncode == 0
    path = tmp_path / "new" / "mcp.json"
    assert is_trusted(path, path.read_bytes())
    kept = tmp_path / "kept" / "mcp.json"
    kept.parent.mkdir()
    kept.write_text('{"mcpServers": {"p": {"command": "x"}}}')
    assert command("init", str(kept.parent)).returncode == 0
    assert not is_trusted(kept, kept.read_bytes())

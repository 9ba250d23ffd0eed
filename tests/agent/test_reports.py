"""What ``rk.tools()`` and ``rk.lm()`` tell a user."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import research_kit as rk
from research_kit.agent import configured_servers

SCRIPT = str(Path(__file__).with_name("stdio_server.py"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RESEARCH_KIT_TRUST", str(folder.parent))
    return folder.parent


def write_config(project: Path, **servers: object) -> None:
    (project / "mcp.json").write_text(json.dumps({"mcpServers": servers}))


def close_servers(project: Path) -> None:
    for server in configured_servers(project)[0]:
        server.close()


def test_tools_lists_servers_with_their_states(project: Path) -> None:
    """Built-in, configured and broken servers are listed with their tools, or with what is wrong."""
    write_config(
        project,
        practice={"command": sys.executable, "args": [SCRIPT]},
        broken={"command": "no-such-program-<b>"},
    )
    report = rk.tools()
    frame = report.to_frame().set_index(["server", "tool"])
    assert frame.loc[("kernel", "list_variables"), "is_read_only"]
    assert frame.loc[("practice", "write"), "needs_approval"]
    assert not frame.loc[("practice", "add"), "needs_approval"]
    assert "no-such-program" in frame.loc["broken"]["state"].item()
    assert [str(dtype) for dtype in frame.dtypes] == ["string", "boolean", "boolean", "string"]
    assert "practice: connected" in repr(report)
    assert "write" in repr(report)
    assert "&lt;b&gt;" in report._repr_html_()
    close_servers(project)


def test_programs_are_shared_until_the_file_changes(project: Path) -> None:
    """Asking again starts nothing; an entry that changed gets a program of its own, and the old one ends."""
    write_config(project, practice={"command": sys.executable, "args": [SCRIPT]})
    [first] = configured_servers(project)[0]
    rk.tools()
    process = first.call_tool("process_id").text
    [second] = configured_servers(project / "notebooks")[0]
    assert second is first
    assert second.call_tool("process_id").text == process
    write_config(project, practice={"command": sys.executable, "args": [SCRIPT, "--other"]})
    [third] = configured_servers(project)[0]
    assert third.call_tool("process_id").text != process
    close_servers(project)


def test_broken_file_is_a_state(project: Path) -> None:
    """A file that is no JSON does not keep the built-in tools from being listed."""
    (project / "mcp.json").write_text("{")
    report = rk.tools()
    assert "is not JSON" in repr(report)
    assert "list_variables" in repr(report)


def test_file_of_another_user_starts_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody else put into a folder above is named, and not used."""
    monkeypatch.delenv("RESEARCH_KIT_TRUST")
    write_config(project, practice={"command": sys.executable, "args": [SCRIPT]})
    if os.getuid() == 0:
        os.chown(project / "mcp.json", 4711, -1)
    else:
        monkeypatch.setattr("os.getuid", lambda: 4711)
    servers, [state] = configured_servers(project)
    assert servers == []
    assert "belongs to another user" in str(state.problem)


@pytest.mark.parametrize("name", [None, "ollama_chat/qwen3"])
def test_lm_says_what_would_answer(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """The choice and its reason are told, whether the model was passed or named in the environment."""
    monkeypatch.setenv("RESEARCH_KIT_LM", "ollama_chat/llama3.2")
    report = rk.lm(name)
    assert report.name == (name or "ollama_chat/llama3.2")
    expected = "passed as an argument" if name else "named by RESEARCH_KIT_LM"
    assert expected in repr(report)


def test_lm_says_what_to_do_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot work is no error here, but a report that says what to do."""
    monkeypatch.setenv("RESEARCH_KIT_LM", "gpt-4o-mini")
    report = rk.lm()
    assert report.name is None
    assert "does not say who serves it" in repr(report)

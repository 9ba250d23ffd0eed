"""A conversation beside an ``mcp.json``: its tools, what they ask first, and what they show."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
from scripted_lm import Reply, ScriptedLM, adapter_reply

from research_kit.agent import configured_servers
from research_kit.chat.engine import Conversation
from research_kit.chat.events import (
    ApprovalNeeded,
    Event,
    MessageFinished,
    Notice,
    ToolFinished,
    ToolReported,
    ToolStarted,
)
from research_kit.chat.ui_messages import ChatMessage, fold_events

SCRIPT = Path(__file__).parents[1] / "agent" / "stdio_server.py"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A notebook's folder below an ``mcp.json`` with one server that starts and one that does not."""
    practice = {"command": sys.executable, "args": [str(SCRIPT)]}
    servers = {"practice": practice, "broken": {"command": "no-such-program"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RESEARCH_KIT_TRUST", str(tmp_path))
    monkeypatch.setenv("LANGFUSE_TRACING_ENABLED", "false")
    yield folder
    for server in configured_servers(folder)[0]:
        server.close()


def step(tool: str, **arguments: object) -> Reply:
    return adapter_reply(next_thought="I look.", next_tool_name=tool, next_tool_args=json.dumps(arguments))


def script(server: ScriptedLM, *steps: Reply) -> Conversation:
    server.script(*steps, step("finish"), adapter_reply(reasoning="I know.", answer="done"))
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.base_url, api_key="x", cache=False, num_retries=0)
    return Conversation(lm=lm)


def test_tools_of_the_project_are_used(project: Path, server: ScriptedLM) -> None:
    """Configured tools answer beside the built-in ones; a server that does not start is told, and no more."""
    conversation = script(server, step("add", a=2, b=3), step("count"), step("draw"), step("list_variables"))
    events = list(conversation.send("go"))
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert "'broken'" in notice.text
    assert "no-such-program" in notice.text
    results = {event.name: event for event in events if isinstance(event, ToolFinished)}
    assert results["add"].result == "5"
    assert not results["list_variables"].is_error
    assert [image[:22] for image in results["draw"].images] == ["data:image/png;base64,"]
    [started] = [event for event in events if isinstance(event, ToolStarted) and event.name == "count"]
    told = [event for event in events if isinstance(event, ToolReported)]
    assert [(event.call_id, event.done, event.total) for event in told] == [
        (started.call_id, number, 3) for number in (1, 2, 3)
    ]
    assert isinstance(events[-1], MessageFinished)
    server.script(step("finish"), adapter_reply(reasoning="I know.", answer="again"))
    assert not [event for event in conversation.send("more") if isinstance(event, Notice)]


def test_panel_shows_progress_and_pictures(project: Path, server: ScriptedLM) -> None:
    """Of the events the panel makes a line of progress, and keeps pictures beside the result."""
    events = list(script(server, step("count"), step("draw")).send("go"))

    def answer_after(kind: type[Event]) -> ChatMessage:
        index = max(index for index, event in enumerate(events) if isinstance(event, kind))
        empty = ChatMessage(message_id="a1", role="assistant", state="running")
        return fold_events(empty, events[: index + 1]).answer

    assert answer_after(ToolReported).tools[0].progress == "100% · step 3"
    assert [len(tool.images) for tool in answer_after(MessageFinished).tools] == [0, 1]


@pytest.mark.parametrize("decision", ["once", "deny"])
def test_tool_that_changes_something_asks(project: Path, server: ScriptedLM, decision: str) -> None:
    """A tool that is not marked read-only runs after it was allowed, and else not at all."""
    path = project / "note.txt"
    conversation = script(server, step("write", path=str(path), text="x"))
    conversation.approvals.is_shown = True
    asked = []
    for event in conversation.send("go"):
        if isinstance(event, ApprovalNeeded):
            asked.append((event.server, event.name, event.arguments["text"], event.is_changed))
            assert not path.exists()
            conversation.decide(event.call_id, decision)
    assert asked == [("practice", "write", "x", False)]
    assert path.exists() == (decision == "once")


def test_what_a_tool_says_is_data(project: Path, server: ScriptedLM) -> None:
    """A tool that claims an approval, names a model and shows links changes nothing but its own result."""
    path = project / "note.txt"
    conversation = script(server, step("hostile"), step("write", path=str(path), text="x"))
    conversation.approvals.is_shown = True
    environment, asked, events = dict(os.environ), [], []
    for event in conversation.send("go"):
        events.append(event)
        if isinstance(event, ApprovalNeeded):
            asked.append(event.name)
            conversation.decide(event.call_id, "deny")
    assert asked == ["write"]
    assert not path.exists()
    assert dict(os.environ) == environment
    assert conversation.lm_name == "openai/gpt-4o-mini"
    [result] = [event for event in events if isinstance(event, ToolFinished) and event.name == "hostile"]
    assert result.images == ()
    assert "[resource sign in: http://evil.example/]" in result.result
    assert isinstance(events[-1], MessageFinished)

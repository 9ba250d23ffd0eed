"""The messages between panel and browser are those of protocol.json."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_panel import PROTOCOL, Browser, ScriptedEngine, finished, shape_of, started

from research_kit.chat.events import Delta, ToolStarted
from research_kit.chat.panel import ChatPanel, find_asset
from research_kit.chat.spending import Budget
from research_kit.errors import ResearchKitError


@pytest.mark.parametrize("name", PROTOCOL["to_kernel"])
def test_panel_takes_every_message_of_the_protocol(name: str) -> None:
    """Each message that the front end may send is understood."""
    browser = Browser([started(), finished()], [started(), finished()])
    browser.send_and_wait("hi")
    browser.panel.receive(PROTOCOL["to_kernel"][name])
    browser.wait_until_idle()
    browser.join_thread()


def test_panel_sends_only_messages_of_the_protocol() -> None:
    """Each message to the browser has exactly the fields of its example, and every example occurs."""
    gate = threading.Event()
    call = ToolStarted(call_id="c1", name="describe", arguments={})
    browser = Browser([started(), call, Delta(text="Hel lo", offset=0), gate, finished()])
    browser.engine.budget = Budget(session_id="s", used=browser.engine.budget.used, limit_tokens=10)
    browser.panel.receive({"type": "hello", "revision": 0})
    browser.send("hi")
    browser.send(" ")
    browser.wait_for_custom("delta")
    gate.set()
    browser.wait_until_idle()
    browser.join_thread()
    for name in ("open", "export", "list_sessions", "feedback"):
        browser.panel.receive(PROTOCOL["to_kernel"][name])
        browser.join_thread()
    browser.engine.refusal = ResearchKitError("no")
    browser.panel.receive(PROTOCOL["to_kernel"]["feedback"])
    browser.join_thread()
    shapes: dict[str, Any] = {}
    for message in browser.comm.custom:
        shapes.setdefault(message["type"], shape_of(message))
    # The first message of a turn is the user's, which has no usage yet.
    shapes["message"] = shape_of([m for m in browser.comm.custom if m["type"] == "message"][-1])
    browser.panel.show_past([])
    shapes["cut"] = shape_of(browser.comm.custom[-1])
    assert shapes == {name: shape_of(message) for name, message in PROTOCOL["to_browser"].items()}
    assert shape_of(browser.panel.status) == shape_of(PROTOCOL["traits"]["status"])


@pytest.mark.parametrize("content", [{"type": "launch"}, {"type": "send", "text": "hi"}, "hello", None])
def test_panel_names_a_message_it_does_not_know(content: Any) -> None:
    """A message of another release is an error that says so."""
    with pytest.raises(ResearchKitError, match="reload it"):
        Browser().panel.receive(content)


def test_panel_takes_no_unknown_arguments() -> None:
    """A misspelt argument is an error, not a silently ignored one."""
    with pytest.raises(TypeError, match="titel"):
        ChatPanel(ScriptedEngine(), titel="x")  # type: ignore[call-arg]


def test_find_asset_prefers_the_first_folder(tmp_path: Path) -> None:
    """The installed file wins over the one of a checkout; when both are missing, both places are named."""
    for name in ("static", "widgets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.js").write_text(name)
    folders = (tmp_path / "static", tmp_path / "widgets")
    assert find_asset("index.js", folders=folders).read_text() == "static"
    (tmp_path / "static" / "index.js").unlink()
    assert find_asset("index.js", folders=folders).read_text() == "widgets"
    (tmp_path / "widgets" / "index.js").unlink()
    with pytest.raises(ResearchKitError, match=r"static nor in .*widgets.*Reinstall"):
        find_asset("index.js", folders=folders)

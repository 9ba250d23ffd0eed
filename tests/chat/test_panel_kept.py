"""What stays of a conversation: saved notebooks, exports, sessions, scores; never a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from scripted_panel import USAGE, Browser, finished, started

from research_kit.chat.events import MessageFailed, ToolFinished, ToolStarted
from research_kit.chat.feedback import Feedback
from research_kit.chat.past import PastMessage, PastTool
from research_kit.errors import BackendError, ConfigError

PAST = PastMessage(
    message_number=7,
    question="What was it?",
    answer="**42**",
    error=None,
    usage=USAGE,
    latency_s=1.0,
    trace_id="t7",
    feedback=Feedback(0, "too short"),
    tools=(
        PastTool(
            call_id="c7",
            name="look",
            arguments={"name": "x"},
            result="an int",
            is_error=False,
            latency_s=0.2,
        ),
    ),
)


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_bundle_has_the_transcript_beside_the_view() -> None:
    """Viewers without widgets find the transcript in the same bundle as the view."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("what is up")
    bundle = browser.panel._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == browser.panel.model_id
    assert "what is up" in data["text/html"]
    assert "Hello <strong>you</strong>" in data["text/html"]


def test_saved_transcript_is_whole_and_only_its_end_changes(shell: InteractiveShell) -> None:
    """Each answer updates the last output; earlier ones are moved once in a while, and none is lost."""
    browser = Browser(*[[started(), finished(f"answer {n}.")] for n in range(20)])
    shown: dict[str, str] = {}
    with capture_output(stdout=False, stderr=False) as captured:
        shell.display_formatter.format(browser.panel)  # type: ignore[union-attr]
        for number in range(20):
            browser.send_and_wait(f"question {number}?")
            browser.join_thread()
    view, *parts = captured.outputs
    assert "text/html" not in view.data
    updates = [0, 0, 0]
    for part in parts:
        display_id = str(part.transient)
        if display_id in shown:
            updates[list(shown).index(display_id)] += 1
        shown[display_id] = part.data["text/html"]
    whole = "".join(shown.values())
    for number in range(20):
        assert whole.index(f"question {number}?") < whole.index(f"answer {number}.")
    assert updates[2] > 10 * updates[1] > 0
    assert "messages 20" in whole


def test_nothing_kept_holds_a_secret(shell: InteractiveShell) -> None:
    """The token that opens the store's pages is in no trait, no saved output and no export."""
    browser = Browser([started(), finished()])
    with capture_output(stdout=False, stderr=False) as captured:
        shell.display_formatter.format(browser.panel)  # type: ignore[union-attr]
        browser.send_and_wait("hi")
        browser.join_thread()
    kept = [json.dumps(browser.panel.get_state(), default=str), *(str(out.data) for out in captured.outputs)]
    kept += [browser.panel.export(form).text for form in ("markdown", "html", "jsonl")]
    assert not [text for text in kept if "token=" in text]
    browser.panel.receive({"type": "open", "request_id": "r9", "trace_id": "t1"})
    browser.join_thread()
    assert browser.comm.custom[-1]["url"] == "http://127.0.0.1:1/traces/t1?token=proof"


def test_secrets_of_all_sides_are_not_kept() -> None:
    """A key that a person, a tool or the model says is in no trait and no export; the engine gets it."""
    secret = "sk-proj-abcdefghij0123456789ABCDEFGHIJ"
    said = f"It is {secret}, or postgres://ann:correct-horse@db.example/lab."
    call = ToolStarted(call_id="c1", name="read", arguments={"text": said})
    result = ToolFinished(call_id="c1", name="read", result=said, is_error=False, latency_s=0.1)
    failed = MessageFailed(error=said, usage=USAGE, latency_s=0.1, trace_id="t1")
    browser = Browser([started(), call, result, finished(said)], [started(), failed])
    browser.send_and_wait(said)
    browser.send_and_wait("again")
    browser.panel.receive({"type": "feedback", "message_id": "a1", "value": 0, "comment": said})
    browser.join_thread()
    assert browser.engine.sent[0] == said
    kept = [json.dumps(browser.panel.get_state(), default=str)]
    kept += [browser.panel.export(form).text for form in ("markdown", "html", "jsonl")]
    for text in kept:
        assert secret not in text
        assert "correct-horse" not in text
        assert text.count("[masked]") >= 6


def test_addresses_that_become_known_later_are_shown() -> None:
    """A Langfuse server tells its project after the first answer; a look at the panel then brings links."""
    browser = Browser([started(), finished()])
    browser.engine.is_project_known = False
    assert browser.send_and_wait("hi")["trace_url"] is None
    browser.engine.is_project_known = True
    browser.panel.receive({"type": "refresh"})
    assert browser.answer["trace_url"] == "http://127.0.0.1:1/traces/t1"
    assert browser.panel.status["session_url"] == "http://127.0.0.1:1/sessions/jupyter-1"
    sent = {**browser.answer, "html": [browser.answer["html"]]}
    assert browser.comm.custom[-1]["message"] == sent


def test_a_change_of_the_backend_is_shown_when_it_happens() -> None:
    """Nobody needs to look at the panel or write: the state and its reason come by themselves."""
    browser = Browser()
    browser.engine.backend_state, browser.engine.backend_reason = "buffering", "it answered 503"
    [tell] = browser.engine.listeners
    tell()
    shown = browser.comm.states[-1]["status"]
    assert (shown["backend_state"], shown["backend_reason"]) == ("buffering", "it answered 503")
    browser.panel.close()
    assert browser.engine.listeners == []


def test_export_leaves_code_as_it_was_written() -> None:
    """In exported Markdown, signs of HTML are taken apart in prose and stay in code."""
    code = "```python\nif a < b:\n    print(x[0] != y)\n```"
    browser = Browser([started(), finished(f"`a < b` but <b>\n\n{code}\n\n\\`<i>`")])
    browser.send_and_wait("code?")
    text = browser.panel.export("markdown").text
    assert "&lt;i>" in text
    assert code not in text  # what only seems to be code makes all signs suspect
    browser = Browser([started(), finished(f"`a < b` but <b>\n\n{code}")])
    browser.send_and_wait("code?")
    assert f"`a < b` but &lt;b>\n\n{code}" in browser.panel.export("markdown").text


def test_export_has_everything_in_each_form() -> None:
    """Markdown, HTML and JSON lines hold questions and answers; another form is refused."""
    browser = Browser([started(), finished("**Yes**, ![x](http://evil.example/x.png) <b>")])
    browser.send_and_wait("```\nis <it>?")
    markdown = browser.panel.export("markdown")
    assert markdown.name == "chat-jupyter-1.md"
    assert "````text\n```\nis <it>?\n````" in markdown.text
    assert "**Yes**, \\![x](http://evil.example/x.png) &lt;b>" in markdown.text
    html = browser.panel.export("html").text
    assert "<strong>Yes</strong>" in html
    assert "default-src 'none'" in html
    assert "<img" not in html
    lines = [json.loads(line) for line in browser.panel.export("jsonl").text.splitlines()]
    assert [line["role"] for line in lines] == ["user", "assistant"]
    assert lines[1]["usage"]["input_tokens"] == 100
    with pytest.raises(ConfigError, match="cannot be exported as 'docx'"):
        browser.panel.export("docx")


def test_feedback_is_shown_and_taken_back() -> None:
    """A thumb reaches the engine with its comment, stays in the trait, and can be taken back."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    for value, comment in ((0, "wrong \ud800"), (None, "")):
        browser.panel.receive({"type": "feedback", "message_id": "a1", "value": value, "comment": comment})
        browser.join_thread()
        expected = None if value is None else {"value": value, "comment": "wrong ?"}
        assert browser.answer["feedback"] == expected
        assert browser.comm.custom[-1] == {"type": "feedback", "message_id": "a1", "feedback": expected}
    assert browser.engine.calls == [("feedback", "t1", 0, "wrong ?"), ("feedback", "t1", None, "")]


def test_feedback_that_fails_stays_as_it_was() -> None:
    """When a score cannot be taken back, the thumb stays pressed and the reason is shown."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    browser.panel.receive({"type": "feedback", "message_id": "a1", "value": 1, "comment": ""})
    browser.join_thread()
    browser.engine.refusal = BackendError("The server is away.", base_url="http://x")
    browser.panel.receive({"type": "feedback", "message_id": "a1", "value": None, "comment": ""})
    browser.join_thread()
    assert browser.answer["feedback"] == {"value": 1, "comment": ""}
    assert {"type": "notice", "text": "The server is away."} in browser.comm.custom


def test_feedback_reaches_no_other_message() -> None:
    """When another session is opened while the server takes a thumb, none of its messages is given it."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    other = replace(PAST, message_number=1, feedback=None)
    browser.engine.meanwhile = lambda: browser.panel.show_past([other])
    browser.panel.receive({"type": "feedback", "message_id": "a1", "value": 1, "comment": ""})
    browser.join_thread()
    assert (browser.answer["trace_id"], browser.answer["feedback"]) == ("t7", None)
    assert "feedback" not in [message["type"] for message in browser.comm.custom]


def test_session_is_picked_and_replayed() -> None:
    """The picker lists sessions; opening one shows its messages, and new ones go on from there."""
    browser = Browser([started(), finished()], [started(), finished("more")])
    browser.send_and_wait("hi")
    browser.panel.receive({"type": "list_sessions"})
    browser.join_thread()
    [session] = browser.comm.custom[-1]["sessions"]
    assert (session["session_id"], session["title"]) == ("jupyter-0", "What was it?")
    assert session["cost"] == "$0.0012"
    browser.engine.past = [PAST]
    browser.panel.receive({"type": "open_session", "session_id": "jupyter-0"})
    browser.join_thread()
    assert [message["text"] for message in browser.transcripts[-1]["messages"]] == ["What was it?", "**42**"]
    assert browser.answer["html"] == "<p><strong>42</strong></p>\n"
    assert browser.answer["feedback"] == {"value": 0, "comment": "too short"}
    [tool] = browser.answer["tools"]
    assert (tool["name"], tool["arguments"], tool["result"]) == ("look", '{\n  "name": "x"\n}', "an int")
    browser.send_and_wait("and now?")
    assert [message["message_id"] for message in browser.panel.messages] == ["q7", "a7", "q8", "a8"]


def test_session_that_cannot_be_read_changes_nothing() -> None:
    """When a session cannot be read, the messages stay and the reason is shown."""
    browser = Browser([started(), finished()])
    browser.send_and_wait("hi")
    browser.engine.refusal = BackendError("The server is away.", base_url="http://x")
    browser.panel.receive({"type": "open_session", "session_id": "jupyter-0"})
    browser.join_thread()
    assert browser.comm.custom[-1] == {"type": "notice", "text": "The server is away."}
    assert len(browser.panel.messages) == 2

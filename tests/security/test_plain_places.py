"""Every place that shows what others wrote, with every kind of hostile text: it is only read."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pandas as pd
import pytest
from hostile_logs import HOSTILE, OWN_COMMAND, TEXTS, breaches, character_breaches

import research_kit as rk
from research_kit._notices import warn_user
from research_kit.chat.cell_chat import CellAnswer
from research_kit.chat.events import ApprovalNeeded, MessageFinished, Notice, ToolFinished, ToolStarted, Usage
from research_kit.chat.markdown import defuse_markdown, render_markdown
from research_kit.chat.ui_messages import ChatMessage, fold_event, message_to_wire
from research_kit.cli import transfer_commands
from research_kit.cli.doctor import Finding
from research_kit.cli.printing import say
from research_kit.errors import BackendError, ConfigError, MissingExtraError, ResearchKitError
from research_kit.regression.report import CellText
from research_kit.regression.report_files import github_annotations, junit_xml, markdown_summary
from research_kit.regression.report_page import report_page
from research_kit.regression.report_text import format_message, format_summary
from research_kit.regression.summary import RunSummary
from research_kit.session.status import SessionStatus
from research_kit.store.markup import element
from research_kit.traces.frames import build_observations
from research_kit.transfer import Transferred


def summary_of(text: str) -> RunSummary:
    return RunSummary(
        name=text, path=text, verdict="failed", message=text, problems=(text,),
        cells=(CellText(heading=text, cell_index=0, source=text, details=((text, text),)),),
        duration_s=1.0, start_time_s=0.0, output_path=text, session_url=text, parameters=text,
        expected_from="none", accepted_path=text, changed_count=0, repeats=text, cost_usd=None,
        total_tokens=None, lm_call_count=None, tool_call_count=None, sent_to=text,
    )  # fmt: skip


ANSWER = ChatMessage(message_id="a1", role="assistant", state="running")


def panel_texts(text: str) -> str:
    """Return what the panel shows of a tool call that waits to be allowed, and of its result."""
    started = ToolStarted(call_id="c", name=text, arguments={"code": text, text: 1})
    asking = ApprovalNeeded(call_id="c", name=text, server=text, arguments={"code": text}, is_changed=False)
    ended = ToolFinished(call_id="c", name=text, result=text, is_error=True, latency_s=1.0)
    answer = ANSWER
    for event in (started, asking, ended, Notice(text=text)):
        answer = fold_event(answer, event)
    wire = message_to_wire(answer, trace_url=None)
    (tool,) = wire["tools"]
    return "\n".join([tool["name"], tool["arguments"], tool["result"], wire["notice"]])


def answer_of(text: str) -> str:
    event = MessageFinished(answer=text, usage=Usage(), latency_s=1.0, trace_id=None)
    return repr(CellAnswer(event, None))


def status_of(text: str) -> SessionStatus:
    return SessionStatus(state="rejected", reason=text, user_id=text, faults=((text, text),))


def observations_of(text: str) -> pd.DataFrame:
    """Return a trace with ``text`` in every place that holds one."""
    text = text.encode("utf-8", "replace").decode()
    row = {
        "id": "1", "traceId": "1", "startTime": "2026-01-01T00:00:00.000Z", "isRootObservation": True,
        "sessionId": text, "userId": text, "name": text, "model": text, "type": text, "traceName": text,
        "level": "ERROR", "statusMessage": text, "input": text, "output": json.dumps(text),
        "metadata": {text: text},
    }  # fmt: skip
    return build_observations([row])


def _without_folds(error: ResearchKitError) -> str:
    # A message may hold a diff. Its marks begin a group in a log of Buildkite, and nothing else.
    return re.sub(r"^(?:---|\+\+\+|~~~|\^\^\^) ", "", str(error), flags=re.MULTILINE)


LOG_PLACES: dict[str, Callable[[str], str]] = {
    "error": lambda text: _without_folds(ConfigError(text)),
    "backend error": lambda text: _without_folds(BackendError(text, base_url=text)),
    "import error": lambda text: _without_folds(MissingExtraError(text)),
    "message": format_message,
    "summary": lambda text: format_summary(summary_of(text)),
    "JUnit": lambda text: "".join(ET.fromstring(junit_xml([summary_of(text)])).itertext()),
    "Markdown summary": lambda text: markdown_summary([summary_of(text)]),
    "finding": lambda text: str(Finding(level="problem", topic="tools", text=text)),
    "status": lambda text: str(status_of(text)),
    "answer": answer_of,
    "replay": lambda text: repr(rk.replay(observations_of(text))),
    "trace": lambda text: repr(rk.show(observations_of(text))),
}
PAGE_PLACES: dict[str, Callable[[str], str]] = {
    "panel": panel_texts,
    "answer": render_markdown,
    "code": lambda text: render_markdown(f"```python\n{text}\n```"),
    "long answer": lambda text: render_markdown(text + "x" * 60_000),
    "Markdown": defuse_markdown,
    "page": lambda text: element("p", text, title=text),
    "report page": lambda text: report_page([summary_of(text)], commit=text, branch=text),
    "status": lambda text: status_of(text)._repr_html_(),
    "replay": lambda text: rk.replay(observations_of(text)).to_html(),
    "trace": lambda text: rk.show(observations_of(text)).to_html(),
}
IDS = [ascii(text)[1:25] for text in TEXTS]


@pytest.mark.parametrize("text", TEXTS, ids=IDS)
@pytest.mark.parametrize("place", LOG_PLACES)
def test_no_place_of_a_log_obeys(place: str, text: str) -> None:
    """Whatever the text, and wherever in a log it is printed, it is only read."""
    shown = LOG_PLACES[place](text)
    assert breaches(shown) == []
    shown.encode("utf-8")


@pytest.mark.parametrize("text", TEXTS, ids=IDS)
@pytest.mark.parametrize("place", PAGE_PLACES)
def test_no_place_of_a_page_hides_or_turns(place: str, text: str) -> None:
    """On pages and in the panel nothing turns or hides its neighbours, and what was there can be read."""
    shown = PAGE_PLACES[place](text)
    assert character_breaches(shown) == []
    shown.encode("utf-8")
    if "\u202e" in text:
        assert r"\u202e" in re.sub("<[^>]+>", "", shown)  # colours of code stand between


def test_a_warning_is_a_line_of_text() -> None:
    """What a server or a file makes us warn about stays on its line."""
    with pytest.warns(UserWarning, match="boom") as caught:
        warn_user(HOSTILE)
    assert breaches(str(caught[0].message)) == []
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("text", TEXTS, ids=IDS)
def test_an_annotation_is_one_command(text: str) -> None:
    """An annotation for GitHub is one line with three parts, whatever the names and messages hold."""
    (line,) = github_annotations([summary_of(text)])
    assert OWN_COMMAND.fullmatch(line)
    assert breaches(line.removeprefix("::")) == []


def test_a_link_to_traces_leads_to_a_web_address_only() -> None:
    """An address that a kernel told is no script."""
    assert "<a " not in report_page([summary_of("javascript:alert(1)")])
    assert '<a href="https://example.org/s">' in report_page([summary_of("https://example.org/s?token=x")])


def test_secrets_of_a_notebook_are_in_no_report() -> None:
    """What masking knows is masked in each form, also within what is escaped."""
    key = "sk-proj-" + "a1B2" * 12
    one = summary_of(f"boom {key}\n\x1b[31m{key}")
    shown = [
        format_summary(one),
        junit_xml([one]),
        markdown_summary([one]),
        report_page([one]),
        one.to_json(),
    ]
    assert [text for text in [*shown, *github_annotations([one])] if key in text] == []


def test_ordinary_texts_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Languages, emoji and drawings look in an answer and on the terminal as they were written."""
    text = "naïve 日本語 שלום، مرحبا हिन्दी 👩\u200d🔬 ❤\ufe0f e\u0301 ┌─┐ a[::2] x::y"
    assert text in render_markdown(text)
    say(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_refused_observations_are_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    """What a server says about what it refused is printed as text."""
    moved = Transferred(observation_count=1, score_count=0, refused=(HOSTILE, *TEXTS))
    assert transfer_commands._print_moved(moved) == 1
    assert breaches(capsys.readouterr().out) == []

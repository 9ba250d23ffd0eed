"""Traces and sessions as they are shown: complete, in order, honest about what is unknown or left out."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from research_kit.errors import ConfigError
from research_kit.traces.frames import build_observations
from research_kit.views import replay, show
from research_kit.views.texts import plain_line


def test_a_trace_is_a_tree_with_bars(observations: pd.DataFrame) -> None:
    """Each observation is a line below what it happened in, with a bar where it was and what it used."""
    shown = str(show(observations[observations["trace_id"] == f"{1:032x}"]))
    title, facts, *lines = shown.split("\n")
    assert title == f"chat · trace {1:032x}"
    assert facts.startswith("latency 4.00 s · tokens 200 in · 20 out · cost $0.002 · LM calls 2")
    assert [line.split("|")[0].rstrip() for line in lines] == [
        "span chat",
        "  generation call-1",
        "  tool query",
        "    tool server-side",
        "  generation call-2",
    ]
    assert lines[4].split("|")[1] == " " * 15 + "█" * 15
    assert lines[1].endswith("100 → 10  $0.001")


def test_bars_are_where_the_time_was(observations: pd.DataFrame) -> None:
    """In HTML a bar begins and ends in proportion, and a stream's wait for its first token is lighter."""
    html = show(observations[observations["trace_id"] == f"{1:032x}"]).to_html()
    places = re.findall(r"left: min\(([\d.]+)%, 100% - 3px\); width: ([\d.]+)%", html)
    assert places == [
        ("0.00", "100.00"),
        ("12.50", "25.00"),
        ("37.50", "12.50"),
        ("40.00", "7.50"),
        ("50.00", "50.00"),
    ]
    assert html.count('<i style="width: 40.0%">') == 1


def test_broken_trees_are_whole(observations: pd.DataFrame) -> None:
    """Circles, missing parents and missing ends leave no observation out, and break nothing."""
    rows = observations.iloc[[0, 1, 2, 3]].assign(
        parent_observation_id=["server-side", "nobody", "chat-1", "query"],
        end_time=pd.array([None] * 4, "datetime64[ns, UTC]"),
    )
    rows["parent_observation_id"] = rows["parent_observation_id"].astype("string")
    text = str(show(rows))
    assert sorted(re.findall(r"(chat|call-1|query|server-side) +\|", text)) == [
        "call-1", "chat", "query", "server-side",
    ]  # fmt: skip


def test_replay_is_the_conversation(observations: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Questions, tools with their arguments, answers, failures, figures and scores, in order."""
    text = str(replay(observations, scores=scores))
    head, first, second, third = text.split("\n\n")
    assert head.startswith("Session pilot · 2026-11-20 09:12:04 UTC · nora · m-small · m-large")
    assert "turns 3 · cost ≥ $0.002" in head
    assert "errors 1 · share 0.5" in head
    assert first.split("\n") == [
        "── message 1 · 09:12:04",
        "  asked: How heavy?",
        "  tool query(column='mass') 500 ms",
        "  answered: It weighs **5,076 g**.",
        "  4.00 s · 200 in · 20 out · $0.002 · 2 LM calls · helpful yes",
    ]
    assert second.split("\n")[1:3] == ["  asked: Plot it.", "  ! TimeoutError: no answer"]
    assert third.split("\n")[0] == "── cell [7] · 09:28:54"
    assert "unknown cost" in third


def test_replay_in_html_is_markdown_where_a_model_wrote(
    observations: pd.DataFrame, scores: pd.DataFrame
) -> None:
    """Answers are rendered, pauses are said, failures stand out, and no script or frame is there."""
    html = replay(observations, scores=scores).to_html()
    assert "It weighs <strong>5,076 g</strong>." in html
    assert "17 minutes later" in html
    assert '<div class="rk-error">TimeoutError: no answer</div>' in html
    assert "helpful yes · exact" in html
    assert not re.search(r"<(script|iframe|link|img)", html)


def test_what_is_left_out_is_said(observations: pd.DataFrame) -> None:
    """Limits say how much more there is."""
    assert str(replay(observations, max_turns=1)).endswith("… 2 more turns; raise max_turns.")
    assert "… 3 more observations; raise max_rows." in str(show(observations, max_rows=2))
    assert "… 3 more observations" in show(observations, max_rows=2).to_html()


def test_views_show_themselves_everywhere(observations: pd.DataFrame) -> None:
    """Rich and plain forms are there, also when there is nothing, and frames stay as they were."""
    before = observations.copy()
    for view in (
        show(observations),
        replay(observations),
        show(observations.head(0)),
        replay(observations.head(0)),
    ):
        bundle = view._repr_mimebundle_()
        assert bundle == {"text/html": view._repr_html_(), "text/plain": repr(view)}
        assert bundle["text/html"].startswith('<div class="rk-view"><style>')
    pd.testing.assert_frame_equal(before, observations)


def test_terminals_are_not_controlled() -> None:
    """No text of a trace moves the cursor, clears the screen or makes a link."""
    wire: dict[str, Any] = {"id": "a", "traceId": "t\x1b[2J", "startTime": "2026-01-01T00:00:00.000Z"}
    frame = build_observations(
        [{**wire, "name": "x\x1b]8;;http://evil\x07", "input": "\x1b[31m", "model": "\x9b1m"}]
    )
    for text in (str(show(frame)), str(replay(frame))):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda frame: show(frame, max_rows=0), "max_rows is 0"),
        (lambda frame: replay(frame, max_turns=0), "max_turns is 0"),
        (lambda frame: show(frame[["name"]]), "show needs the column 'observation_id'"),
        (lambda frame: show(7), "Cannot show a int"),
        (lambda frame: show("t", as_="polars"), "no argument 'as_' here"),
        (lambda frame: replay(7), "Cannot replay a int"),
    ],
)
def test_what_cannot_be_shown_is_refused(observations: pd.DataFrame, ask: Any, message: str) -> None:
    """Errors name the value and what to give instead."""
    with pytest.raises(ConfigError, match=message):
        ask(observations)


def test_a_line_of_text_keeps_to_its_length() -> None:
    """White space is one blank, and what is cut off ends in dots."""
    assert plain_line("a\n  b" + "c" * 50, 8) == "a bcccc…"

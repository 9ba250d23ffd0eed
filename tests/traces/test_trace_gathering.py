"""What each frame asks the server for, and how frames say that something is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from research_kit.errors import BackendError, ConfigError
from research_kit.traces import (
    ALL_SESSIONS,
    cells_df,
    messages_df,
    observations_df,
    scores_df,
    sessions_df,
    tool_calls_df,
    traces_df,
)


@pytest.fixture
def talk(fake_server, make_row) -> Any:
    """A server with three chat messages, in each of which a tool was called."""
    rows = []
    for n in range(3):
        root = make_row(10 * n, name="chat", traceId=f"t{n}", input=f'"question {n}"', output='"yes"')
        inside = {"traceId": f"t{n}", "parentObservationId": root["id"]}
        prompt = make_row(10 * n + 1, type="GENERATION", input="a very long prompt", **inside)
        tool = make_row(
            10 * n + 2, type="TOOL", name="query", input=f'{{"n": {n}}}', metadata={"n": n}, **inside
        )
        rows += [root, prompt, tool]
    return fake_server(rows[::-1])


@pytest.fixture
def reader(talk, open_fake) -> Any:
    return open_fake(talk)


def _asked(server: Any) -> list[dict[str, str]]:
    return [dict(request.url.params) for request in server.requests]


def test_sessions_ask_for_what_sums_need(talk, reader) -> None:
    """Metadata, models, prompts and times of tokens are no part of a sum."""
    assert sessions_df(reader=reader)["message_count"].tolist() == [3]
    assert {params["fields"] for params in _asked(talk)} == {"core,basic,usage"}


@pytest.mark.parametrize(
    ("function", "only"),
    [(messages_df, {"name": "chat"}), (tool_calls_df, {"type": "TOOL"}), (traces_df, None), (cells_df, None)],
)
def test_inputs_are_asked_for_where_they_are_shown(talk, reader, function, only) -> None:
    """The prompts of LM calls, most of all bytes, are not read for messages and tool calls."""
    function("session-1", reader=reader)
    with_io = [params for params in _asked(talk) if "io" in params["fields"].split(",")]
    assert [{name: params.get(name) for name in (only or {})} for params in with_io] == (
        [only] if only else []
    )


def test_inputs_come_to_their_rows(reader) -> None:
    """What was read apart is beside what it belongs to; without inputs it is missing."""
    messages = messages_df("session-1", reader=reader)
    assert messages["question"].tolist() == ["question 0", "question 1", "question 2"]
    calls = tool_calls_df("session-1", reader=reader)
    assert calls["input"].tolist() == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert calls["metadata"].tolist() == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert messages_df("session-1", reader=reader, includes_io=False)["question"].isna().all()


def test_messages_and_cells_can_be_bounded(reader) -> None:
    """Times and a limit choose messages as they choose traces."""
    with pytest.warns(UserWarning, match="newest 1 of 3 messages"):
        newest = messages_df("session-1", limit=1, reader=reader)
    assert newest["question"].tolist() == ["question 2"]
    later = messages_df("session-1", start_time="2026-11-20T09:00:10Z", reader=reader)
    assert later["question"].tolist() == ["question 1", "question 2"]
    assert cells_df("session-1", end_time="2026-11-20T09:00:10Z", reader=reader).empty


@pytest.fixture
def without_scores(talk) -> Callable[[], None]:
    """Make the server fail for scores."""
    answer = talk.answer
    talk.answer = lambda request: (
        httpx.Response(502) if request.url.path.endswith("/scores") else answer(request)
    )
    return talk


@pytest.mark.parametrize("function", [observations_df, traces_df, scores_df])
def test_scores_that_cannot_be_read_are_told(without_scores, reader, function) -> None:
    """Strict reads raise; else the rest is there, with the failure."""
    options = {} if function is scores_df else {"scores": True}
    with pytest.raises(BackendError, match="502 5 times"):
        function("session-1", reader=reader, **options)
    with pytest.warns(UserWarning, match="scores could not be read"):
        frame, failures = function("session-1", reader=reader, strict=False, **options)
    assert len(frame) == {observations_df: 9, traces_df: 3, scores_df: 0}[function]
    assert [failure.status_code for failure in failures] == [502]
    assert frame.attrs["is_truncated"] is True


def test_a_failure_says_what_is_missing(fake_server, open_fake, make_row) -> None:
    """The error names the range of time that could not be read, and the frame that it lacks rows."""
    server = fake_server([make_row(n) for n in reversed(range(9_000))])
    answer = server.answer
    server.answer = lambda request: (
        httpx.Response(503)
        if request.url.params.get("toStartTime", "9") < "2026-11-20T09:50"
        else answer(request)
    )
    with pytest.warns(UserWarning, match="could not be read"):
        table, failures = observations_df(
            "session-1", reader=open_fake(server), strict=False, cache=False, as_="arrow"
        )
    assert 0 < table.num_rows < 9_000
    assert all("Missing is what began between " in str(failure) for failure in failures)
    assert any("between the beginning and 2026-11-20T" in str(failure) for failure in failures)
    assert table.schema.metadata == {b"is_truncated": b"true"}


def test_a_session_of_another_project_is_refused_with_the_project(talk, open_fake) -> None:
    """The error names the project that the keys belong to; scores of nothing are refused as well."""
    answer = talk.answer
    project = httpx.Response(200, json={"data": [{"id": "p1", "name": "Pilot study"}]})
    talk.answer = lambda request: project if request.url.path.endswith("/projects") else answer(request)
    reader = open_fake(talk)
    for function in (observations_df, messages_df, scores_df):
        with pytest.raises(
            ConfigError, match=r"Project 'Pilot study' of .*'session-2'.*Did you mean 'session-1'"
        ):
            function("session-2", reader=reader)
    assert len(observations_df(ALL_SESSIONS, reader=reader)) == 9

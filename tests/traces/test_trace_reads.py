"""What the public functions ask for, warn about and refuse."""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest

from research_kit.errors import BackendError, ConfigError
from research_kit.traces import (
    ALL_SESSIONS,
    generations_df,
    messages_df,
    observations_df,
    scores_df,
    sessions_df,
    traces_df,
    wait_for,
)


def test_observations_of_one_session(fake_server, open_fake, make_row) -> None:
    """Only the asked session is in the frame, ordered by start, and complete."""
    server = fake_server([make_row(2), make_row(1, sessionId="other"), make_row(0)])
    frame = observations_df("session-1", reader=open_fake(server))
    assert frame["name"].tolist() == ["step-0", "step-2"]
    assert frame.attrs == {"is_truncated": False}


def test_observations_of_all_sessions_and_of_one_trace(fake_server, open_fake, make_row) -> None:
    """ALL_SESSIONS asks for no session; a trace alone is looked for in all sessions."""
    server = fake_server([make_row(1, sessionId="other", traceId="trace-2"), make_row(0)])
    assert len(observations_df(ALL_SESSIONS, reader=open_fake(server))) == 2
    assert observations_df(trace_id="trace-2", reader=open_fake(server))["name"].tolist() == ["step-1"]
    assert all("sessionId" not in request.url.params for request in server.requests)


def test_a_limit_that_bites_warns_at_the_line_of_the_caller(fake_server, open_fake, make_row) -> None:
    """Truncation warns at the user's line and marks the frame; the newest rows stay."""
    server = fake_server([make_row(2), make_row(1), make_row(0)])
    with pytest.warns(UserWarning, match="newest 2 observations") as caught:
        frame = observations_df("session-1", limit=2, reader=open_fake(server))
    assert caught[0].filename == __file__
    assert frame["name"].tolist() == ["step-1", "step-2"]
    assert frame.attrs["is_truncated"] is True


@pytest.mark.parametrize("function", [traces_df, sessions_df])
def test_summaries_count_their_limit_in_their_own_rows(fake_server, open_fake, make_row, function) -> None:
    """A limit on traces or sessions keeps the newest, each with all its observations, and warns."""
    rows = [make_row(n, traceId=f"t{n // 2}", sessionId=f"s{n // 2}") for n in reversed(range(6))]
    reader = open_fake(fake_server(rows))
    call = {"session_id": ALL_SESSIONS} if function is traces_df else {}
    with pytest.warns(UserWarning, match="newest 2 of 3"):
        frame = function(**call, limit=2, reader=reader)
    assert frame["observation_count"].tolist() == [2, 2]
    assert frame.iloc[-1, 0] in ("t2", "s2")
    assert frame.attrs["is_truncated"] is True


def test_an_unknown_session_is_refused_with_similar_ids(fake_server, open_fake, make_row) -> None:
    """A session without any observations is an error that names similar ids, not an empty frame."""
    server = fake_server([make_row(sessionId="jupyter-42")])
    with pytest.raises(
        ConfigError, match=r"no observations of session 'jupyter-43'.*Did you mean 'jupyter-42'.*wait_for"
    ):
        observations_df("jupyter-43", reader=open_fake(server))


def test_the_bound_session_may_be_empty(fake_server, open_fake) -> None:
    """Before anything happened in this kernel, its frames are empty without a warning."""
    from research_kit.session import bind, unbind

    bind(session_id="fresh")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert messages_df(reader=open_fake(fake_server())).empty
    finally:
        unbind()


def test_an_empty_time_range_of_a_known_session_does_not_warn(fake_server, open_fake, make_row) -> None:
    """Nothing in a time range is an answer, not a mistake: the session itself is known."""
    server = fake_server([make_row(traceId="trace-9")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert observations_df("session-1", trace_id="trace-1", reader=open_fake(server)).empty


def test_times_without_zone_are_local_and_warn(fake_server, open_fake, make_row) -> None:
    """A naive time is taken as local, with a warning that shows it."""
    server = fake_server([make_row()])
    naive = datetime(2026, 11, 20, 9, 30)
    with pytest.warns(
        UserWarning, match="start_time has no time zone and is taken as local time: 2026-11-20T09:30"
    ):
        observations_df("session-1", start_time=naive, reader=open_fake(server))
    sent = datetime.fromisoformat(server.requests[0].url.params["fromStartTime"])
    assert sent == naive.astimezone()


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-20T10:00:00+01:00",
        datetime(2026, 11, 20, 10, tzinfo=timezone(timedelta(hours=1))),
        pd.Timestamp("2026-11-20T09:00Z"),
    ],
    ids=["text", "datetime", "timestamp"],
)
def test_times_of_any_zone_are_sent_in_utc(fake_server, open_fake, make_row, moment) -> None:
    """Texts, datetimes and pandas timestamps are sent to the server in UTC."""
    server = fake_server([make_row()])
    observations_df("session-1", end_time=moment, reader=open_fake(server))
    assert server.requests[0].url.params["toStartTime"] == "2026-11-20T09:00:00.000Z"


@pytest.mark.parametrize("moment", ["yesterday", 42, pd.NaT, ""])
def test_what_is_no_moment_is_refused(fake_server, open_fake, moment) -> None:
    """A time that is none is refused with its value before anything is asked."""
    server = fake_server()
    with pytest.raises(ConfigError, match=r"end_time is .*no moment"):
        observations_df("session-1", end_time=moment, reader=open_fake(server))
    assert server.requests == []


def test_a_start_after_the_end_is_refused(fake_server, open_fake) -> None:
    """A range that ends before it begins is a mistake, not an empty frame."""
    later = datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(ConfigError, match=r"start_time 2026-11-20.* lies after end_time 2026-11-19"):
        sessions_df(start_time=later, end_time=later - timedelta(days=1), reader=open_fake(fake_server()))


def test_without_a_session_the_remedies_are_named(fake_server, open_fake) -> None:
    """Asking for this kernel's session when none is bound says what to do instead."""
    with pytest.raises(ConfigError, match=r"rk\.bind\(\).*ALL_SESSIONS"):
        messages_df(reader=open_fake(fake_server()))


def test_generations_are_asked_for_by_type(fake_server, open_fake, make_row, make_call) -> None:
    """Only generations are downloaded for a frame of generations."""
    server = fake_server([make_call(1, cost=0.1), make_row(0)])
    frame = generations_df("session-1", reader=open_fake(server))
    assert frame["type"].tolist() == ["GENERATION"]
    assert server.requests[0].url.params["type"] == "GENERATION"


def test_summaries_do_not_download_inputs(fake_server, open_fake, make_row) -> None:
    """Traces and sessions are summed up from observations without their inputs and outputs."""
    server = fake_server([make_row()])
    reader = open_fake(server)
    traces_df("session-1", reader=reader)
    sessions_df(reader=reader)
    assert all("io" not in request.url.params["fields"].split(",") for request in server.requests)


def test_messages_replay_the_conversation(fake_server, open_fake, make_row, make_call) -> None:
    """One row per chat message, with question, answer, tools, tokens, cost and error of its trace."""
    ask = {
        "name": "chat",
        "metadata": {"message_number": 1},
        "latency": 3.0,
        "endTime": "2026-11-20T09:00:03.000Z",
    }
    root = make_row(0, **ask, input='"How many rows?"', output='"344 rows."')
    inside = {"parentObservationId": root["id"]}
    call = make_call(1, cost=0.25, completionStartTime="2026-11-20T09:00:01.500Z", **inside)
    tool = make_row(2, type="TOOL", name="describe", **inside)
    failed = make_row(
        9, name="chat", traceId="trace-2", level="ERROR", statusMessage="LM away", input='"And now?"'
    )
    other = make_row(10, name="cell [3]", traceId="trace-3")
    frame = messages_df("session-1", reader=open_fake(fake_server([other, failed, tool, call, root])))
    assert frame["message_number"].tolist() == [1, 2]
    assert frame["question"].tolist() == ["How many rows?", "And now?"]
    assert frame["answer"].fillna("-").tolist() == ["344 rows.", "-"]
    assert frame["tools"].fillna("-").tolist() == ["describe", "-"]
    assert frame.loc[0, ["model", "cost_usd", "total_tokens", "tool_call_count"]].tolist() == [
        "gpt-4o-mini",
        0.25,
        110,
        1,
    ]
    assert frame.loc[0, ["latency_s", "time_to_first_token_s"]].tolist() == [3.0, 1.5]
    assert frame["is_error"].tolist() == [False, True]
    assert frame["error"].fillna("-").tolist() == ["-", "LM away"]


def test_scores_of_a_session_include_those_of_its_traces(fake_server, open_fake, make_row) -> None:
    """Scores of a session are asked for by session and by its traces."""
    server = fake_server([make_row(1, traceId="b"), make_row(0, traceId="a")])
    scores_df("session-1", reader=open_fake(server))
    scores = [request.url.params for request in server.requests if request.url.path.endswith("/v3/scores")]
    assert [(params.get("sessionId"), params.get("traceId")) for params in scores] == [
        ("session-1", None),
        (None, "a,b"),
    ]


def test_wait_for_returns_as_soon_as_the_observations_are_there(
    fake_server, open_fake, make_row, clock
) -> None:
    """Waiting asks again until the number is reached."""
    server = fake_server([make_row(0)])
    answer = server.answer

    def arriving(request):
        server.rows.append(make_row(len(server.rows)))
        return answer(request)

    server.answer = arriving
    wait_for("session-1", 3, reader=open_fake(server))
    assert clock.waits_s == [0.25]


def test_wait_for_says_how_many_came(fake_server, open_fake, make_row, clock) -> None:
    """Waiting ends after its time with the number that came, the server and the session."""
    reader = open_fake(fake_server([make_row(0)]))
    expected = (
        r"Only 1 of 5 observations of session 'session-1' can be read from http://langfuse\.test after 2 s"
    )
    with pytest.raises(BackendError, match=expected):
        wait_for("session-1", 5, timeout_s=2, reader=reader)
    assert 2 <= clock.now_s() < 3


def test_importing_the_traces_room_loads_nothing_heavy() -> None:
    """The package resolves its names on first use; importing it loads neither pandas nor httpx."""
    code = (
        "import sys, research_kit.traces as t; names = dir(t); "
        "assert not {'pandas', 'httpx', 'matplotlib', 'opentelemetry'} & set(sys.modules); "
        "assert all(callable(getattr(t, n)) or n in ('ALL_SESSIONS', 'aio') for n in t.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

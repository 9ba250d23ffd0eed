"""Frames and the metrics API answer the same question alike, on the recorded data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import pytest
from recorded import RecordedServer, load_exports

from research_kit.errors import ConfigError
from research_kit.store import StoreAddress
from research_kit.traces import ALL_SESSIONS, TraceReader, cost_by, latency_summary, observations_df

_GROUPS = [
    "model", "user", "session", "trace", "name", "type", "environment", "tag", "day",
    ["user", "model"], ["day", "model"], ["tag", "type"],
]  # fmt: skip


@pytest.fixture(scope="module")
def reader(empty_store: StoreAddress) -> Iterator[TraceReader]:
    """A reader of the store that holds the recorded observations."""
    server = RecordedServer(empty_store)
    for case in load_exports():
        server.problem_of_export(case)
    server.close()
    with TraceReader(empty_store.base_url, empty_store.public_key, empty_store.secret_key) as opened:
        yield opened


@pytest.fixture(scope="module")
def observations(reader: TraceReader) -> pd.DataFrame:
    """All observations; costs whose details have no total are unknown, as they are to the metrics API."""
    frame = observations_df(ALL_SESSIONS, reader=reader)
    rows = reader.list_observations()
    without_total = {row["id"] for row in rows if "total" not in row.get("costDetails", {})}
    return frame.assign(cost_usd=frame["cost_usd"].mask(frame["observation_id"].isin(without_total)))


@pytest.fixture(scope="module")
def on_server(reader: TraceReader) -> dict[str, Callable[..., pd.DataFrame]]:
    """Both functions, answered by the server."""
    where = {"session_id": ALL_SESSIONS, "reader": reader, "end_time": "2026-12-31T00:00Z"}
    return {
        function.__name__: partial(function, engine="server", **where)
        for function in (cost_by, latency_summary)
    }


def _sorted(frame: pd.DataFrame, *, without: str = "") -> pd.DataFrame:
    kept = frame.drop(columns=without) if without else frame
    return kept.sort_values(list(kept.columns), ignore_index=True)


@pytest.mark.parametrize("by", _GROUPS, ids=str)
def test_costs_agree(observations: pd.DataFrame, on_server, by) -> None:
    """The server adds up LM calls; so do frames of LM calls, and the groups are the same."""
    calls = observations[observations["type"].isin(["GENERATION", "EMBEDDING"])]
    here, there = cost_by(calls, by), on_server["cost_by"](by=by)
    # Sums of so different sizes differ in the last digits by the order of adding.
    here, there = (frame.assign(cost_usd=frame["cost_usd"].round(8)) for frame in (here, there))
    pd.testing.assert_frame_equal(_sorted(here), _sorted(there), check_exact=False, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("by", [None, *(group for group in _GROUPS if "tag" not in group)], ids=str)
def test_latencies_agree(observations: pd.DataFrame, on_server, by) -> None:
    """Percentiles are equal where durations of 0 ms, which only the server knows, are given to the frame."""
    length_s = (observations["end_time"] - observations["start_time"]).dt.total_seconds()
    measured = observations.assign(latency_s=observations["latency_s"].fillna(length_s))
    here, there = latency_summary(measured, by), on_server["latency_summary"](by=by)
    without = "output_tokens_per_s"
    assert there[without].isna().all()
    pd.testing.assert_frame_equal(_sorted(here, without=without), _sorted(there, without=without))


def test_the_question_is_narrowed_alike(observations: pd.DataFrame, reader: TraceReader) -> None:
    """Session, type and times choose the same rows; the end is not in the range."""
    chat = observations[observations["session_id"] == "chat-001"]
    calls = chat[chat["type"] == "GENERATION"]
    where = {"session_id": "chat-001", "type": "GENERATION", "reader": reader}
    found = latency_summary(engine="server", **where)
    assert found["latency_p50_s"].tolist() == pytest.approx(latency_summary(calls)["latency_p50_s"].tolist())
    first = calls["start_time"].min()
    assert cost_by(engine="server", end_time=first, **where).empty
    later = cost_by(engine="server", start_time=first + pd.Timedelta(milliseconds=1), **where)
    assert later["call_count"].sum() == (calls["start_time"] > first).sum()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(cost_by, by="tool"), r"cannot group cost_by by 'tool'.*observations_df"),
        (partial(latency_summary, by="tag"), "cannot group latency_summary by 'tag'"),
        (partial(cost_by, by=["day", "user"]), "cannot group by day and user at once"),
        (partial(cost_by, pd.DataFrame()), "given a frame and engine='server'"),
        (partial(cost_by, session_id="chat-01"), r"no observations of session 'chat-01'.*'chat-001'"),
        (partial(cost_by, limit=3), r"no argument 'limit'.*session_id"),
        (
            partial(cost_by, start_time="2026-11-21T00:00Z", end_time="2026-11-20T00:00Z"),
            "lies after end_time",
        ),
    ],
)
def test_what_the_server_cannot_answer_is_refused(reader: TraceReader, call, message) -> None:
    """Each refusal names what does not go, and the way that does."""
    with pytest.raises(ConfigError, match=message):
        call(engine="server", **{"session_id": ALL_SESSIONS, "reader": reader} | call.keywords)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(cost_by, engine="sql"), "engine is 'sql'"),
        (partial(cost_by), "needs a frame"),
        (partial(latency_summary, pd.DataFrame({"latency_s": [1.0]}), type="TOOL"), "takes no 'type'"),
    ],
)
def test_arguments_of_the_other_engine_are_refused(call, message) -> None:
    """An argument that would be ignored is an error."""
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_list_that_the_server_cut_short_is_told(
    monkeypatch: pytest.MonkeyPatch, reader: TraceReader
) -> None:
    """As many groups as the server gives at most may not be all."""
    monkeypatch.setattr("research_kit.traces.analysis.server._MOST_GROUPS", 2)
    with pytest.warns(UserWarning, match="at most 2 groups, and there may be more"):
        found = cost_by(by="session", engine="server", session_id=ALL_SESSIONS, reader=reader)
    assert len(found) == 2

"""Options of a read: slices side by side, failures, kinds of frames, scores, asyncio and stopping."""

from __future__ import annotations

import asyncio
import importlib
import threading
from concurrent.futures import CancelledError
from typing import Any

import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from research_kit.errors import BackendError, ConfigError
from research_kit.traces import (
    ALL_SESSIONS,
    aio,
    generations_df,
    iter_tables,
    observations_df,
    sessions_df,
    tool_calls_df,
    traces_df,
)
from research_kit.traces.schema import OBSERVATIONS

ROWS = 9_500


@pytest.fixture
def long_server(fake_server, make_row) -> Any:
    """Return a server with so many rows that they are read in slices."""
    return fake_server([make_row(number) for number in reversed(range(ROWS))])


@pytest.mark.parametrize("start", [None, "2026-11-20T09:00:00.000Z"], ids=["open", "bounded"])
def test_long_reads_are_complete_whatever_the_slices(long_server, open_fake, start) -> None:
    """A range of many pages is read in slices of time; every row is there once and in order."""
    frame = observations_df("session-1", start_time=start, reader=open_fake(long_server), cache=False)
    assert frame["name"].tolist() == [f"step-{number}" for number in range(ROWS)]
    assert len({request.url.params.get("toStartTime") for request in long_server.requests}) > 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("research-kit-read")]


def test_rows_of_one_millisecond_survive_slices(fake_server, open_fake, make_row) -> None:
    """Slices that cannot be cut in time, because all rows begin together, lose and repeat nothing."""
    same = make_row(0)["startTime"]
    server = fake_server([make_row(number, startTime=same) for number in range(5_500)])
    frame = observations_df("session-1", reader=open_fake(server), cache=False)
    assert frame["observation_id"].nunique() == len(frame) == 5_500


@pytest.fixture
def failing_server(long_server) -> Any:
    """Return the long server; it fails for everything in the older half."""
    answer = long_server.answer

    def fail_older(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("toStartTime", "9") < "2026-11-20T10:00":
            long_server.requests.append(request)
            return httpx.Response(503)
        return answer(request)

    long_server.answer = fail_older
    return long_server


def test_a_part_that_fails_raises(failing_server, open_fake) -> None:
    """By default a frame is complete or not there at all."""
    with pytest.raises(BackendError, match="503 5 times"):
        observations_df("session-1", reader=open_fake(failing_server), cache=False)


def test_a_part_that_fails_is_told_on_request(failing_server, open_fake, tmp_path, monkeypatch) -> None:
    """`strict=False` gives what could be read and the failures, warns, and keeps nothing."""
    monkeypatch.setenv("RESEARCH_KIT_CACHE_DIR", str(tmp_path / "kept"))
    with pytest.warns(UserWarning, match="could not be read"):
        frame, errors = observations_df("session-1", reader=open_fake(failing_server), strict=False)
    assert 4_000 <= len(frame) < ROWS
    assert {error.status_code for error in errors} == {503}
    assert not list((tmp_path / "kept").rglob("*.parquet"))


def test_wrong_keys_raise_even_when_failures_are_allowed(fake_server, open_fake) -> None:
    """Without the right keys there is no frame to give."""
    server = fake_server(script=[httpx.Response(401)])
    with pytest.raises(BackendError, match="LANGFUSE_SECRET_KEY"):
        observations_df("session-1", reader=open_fake(server), strict=False)


def test_one_refusal_for_too_many_requests_holds_all_threads(long_server, open_fake, clock) -> None:
    """429 is waited for and the read completes."""
    answer, refused = long_server.answer, iter([True] * 3)

    def refuse(request: httpx.Request) -> httpx.Response:
        if "toStartTime" in request.url.params and next(refused, False):
            return httpx.Response(429, headers={"retry-after": "7"})
        return answer(request)

    long_server.answer = refuse
    assert len(observations_df("session-1", reader=open_fake(long_server), cache=False)) == ROWS
    assert 7.0 in clock.waits_s


@pytest.mark.parametrize("count", [0, 3])
def test_polars_and_arrow_have_the_columns_of_pandas(fake_server, open_fake, make_row, count) -> None:
    """All kinds have the same columns and values; JSON stays text outside of pandas."""
    server = fake_server([make_row(number, input='{"a": 1}') for number in reversed(range(count))])
    reader = open_fake(server)
    made = {
        kind: observations_df(ALL_SESSIONS, reader=reader, as_=kind, cache=False)
        for kind in ("pandas", "polars", "arrow")
    }
    names = [column.name for column in OBSERVATIONS]
    assert isinstance(made["polars"], pl.DataFrame)
    assert isinstance(made["arrow"], pa.Table)
    assert list(made["pandas"].columns) == made["polars"].columns == made["arrow"].column_names == names
    assert made["polars"].schema["start_time"] == pl.Datetime("ns", "UTC")
    assert made["polars"]["input"].to_list() == made["arrow"]["input"].to_pylist() == ['{"a": 1}'] * count
    assert made["pandas"]["input"].tolist() == [{"a": 1}] * count
    assert sessions_df(reader=reader, as_="polars").height == min(count, 1)


def test_unknown_options_are_refused(fake_server, open_fake) -> None:
    """A misspelled option, or a kind of frame that does not exist, is named."""
    reader = open_fake(fake_server())
    with pytest.raises(ConfigError, match=r"no argument 'cahce'.*cache"):
        observations_df("session-1", reader=reader, cahce=False)
    with pytest.raises(ConfigError, match="as_ is 'dask'"):
        observations_df("session-1", reader=reader, as_="dask")


def test_the_place_in_the_trace_is_in_columns(fake_server, open_fake, make_row, make_call) -> None:
    """Path, parent, speed and error are columns; a path is unknown below a missing parent."""
    root = make_row(0, name="cell [1]")
    tool = make_row(
        1, name="search", type="TOOL", parentObservationId=root["id"], level="ERROR", statusMessage="no"
    )
    call = make_call(2, cost=0.1, name="LM", parentObservationId=tool["id"], costDetails={"cache_read": 0.02})
    orphan = make_row(3, parentObservationId="gone")
    frame = observations_df(
        "session-1", reader=open_fake(fake_server([orphan, call, tool, root])), cache=False
    )
    assert frame["path"].fillna("-").tolist() == [
        "cell [1]", "cell [1] > search", "cell [1] > search > LM", "-",
    ]  # fmt: skip
    assert frame["parent_name"].fillna("-").tolist() == ["-", "cell [1]", "search", "-"]
    assert frame["error"].fillna("-").tolist() == ["-", "no", "-", "-"]
    assert frame["tokens_per_second"].fillna(0).tolist() == [0, 0, 20.0, 0]
    assert frame["cached_cost_usd"].fillna(0).tolist() == [0, 0, 0.02, 0]


def test_tool_calls_count_once(fake_server, open_fake, make_row) -> None:
    """Both sides of an MCP call are one row, with its arguments and its result."""
    client = make_row(1, type="TOOL", name="query", input='{"table": "df"}', output="344")
    server_side = make_row(2, type="TOOL", name="query", parentObservationId=client["id"])
    frame = tool_calls_df("session-1", reader=open_fake(fake_server([server_side, client])), cache=False)
    assert frame[["name", "input", "output"]].to_numpy().tolist() == [["query", {"table": "df"}, "344"]]


def test_scores_are_joined_to_their_own_subject(fake_server, open_fake, make_row) -> None:
    """An observation's score is beside the observation, a trace's beside the trace; no row is added."""
    server = fake_server([make_row(1), make_row(0)])
    base = {"timestamp": "2026-11-20T10:00:00.000Z", "dataType": "NUMERIC", "traceId": "trace-1"}
    of_one = base | {"subject": {"kind": "observation", "id": f"{1:016x}", "traceId": "trace-1"}}
    scores = [
        of_one | {"id": "a", "name": "quality", "value": 1.0},
        of_one | {"id": "b", "name": "quality", "value": 0.0},
        base | {"id": "c", "name": "tone", "value": "kind", "subject": {"kind": "trace", "id": "trace-1"}},
    ]
    answer = server.answer

    def with_scores(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/v3/scores"):
            return answer(request)
        return httpx.Response(
            200, json={"data": scores if "traceId" in request.url.params else [], "meta": {}}
        )

    server.answer = with_scores
    reader = open_fake(server)
    observations = observations_df("session-1", reader=reader, scores=True, cache=False)
    assert observations["score_quality"].fillna(-1).tolist() == [-1, 0.5]
    assert "score_tone" not in observations
    assert traces_df("session-1", reader=reader, scores=True, cache=False)["score_tone"].tolist() == ["kind"]


def test_full_metadata_is_asked_for_without_inputs(fake_server, open_fake, make_row) -> None:
    """Without inputs the server cuts metadata; `full_metadata` asks for all of it."""
    server = fake_server([make_row()])
    observations_df("session-1", reader=open_fake(server), includes_io=False, full_metadata=True, cache=False)
    params = server.requests[0].url.params
    assert "io" not in params["fields"].split(",")
    assert params["expandMetadata"]


def test_tables_are_streamed(long_server, open_fake) -> None:
    """Tables of about the asked size come one after another, newest first, complete."""
    tables = iter_tables("session-1", reader=open_fake(long_server), rows_per_table=2_000)
    first = next(tables)
    assert len(long_server.requests) == 2
    sizes = [first.num_rows, *(table.num_rows for table in tables)]
    assert sizes == [2_000, 2_000, 2_000, 2_000, 1_500]


def test_frames_can_be_awaited(long_server, open_fake) -> None:
    """In an event loop the same frames are awaited, several at a time."""

    async def read() -> list[pd.DataFrame]:
        reader = open_fake(long_server)
        return await asyncio.gather(
            aio.observations_df("session-1", reader=reader, cache=False),
            aio.generations_df("session-1", reader=reader, cache=False),
        )

    observations, generations = asyncio.run(read())
    assert (len(observations), len(generations)) == (ROWS, 0)
    pd.testing.assert_frame_equal(
        generations, generations_df("session-1", reader=open_fake(long_server), cache=False)
    )


def test_a_cancelled_read_sends_nothing_more(long_server, open_fake) -> None:
    """Cancelling the task ends the read at its next request."""
    answer, is_asked, may_go_on = long_server.answer, threading.Event(), threading.Event()

    def hold(request: httpx.Request) -> httpx.Response:
        is_asked.set()
        assert may_go_on.wait(30)
        return answer(request)

    long_server.answer = hold

    async def cancel() -> None:
        task = asyncio.ensure_future(
            aio.observations_df("session-1", reader=open_fake(long_server), cache=False)
        )
        await asyncio.to_thread(is_asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_go_on.set()

    asyncio.run(cancel())  # waits for the threads of the loop
    assert len(long_server.requests) == 1


def test_an_interrupted_read_leaves_nothing_running(long_server, open_fake, monkeypatch) -> None:
    """Ctrl+C in the middle of a read side by side ends all its threads."""
    answer = long_server.answer

    def interrupt(request: httpx.Request) -> httpx.Response:
        if "toStartTime" in request.url.params:
            raise KeyboardInterrupt
        return answer(request)

    long_server.answer = interrupt
    with pytest.raises((KeyboardInterrupt, CancelledError)):
        observations_df("session-1", reader=open_fake(long_server), cache=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("research-kit-read")]


def test_a_bar_is_shown_only_on_request_in_a_script(long_server, open_fake, capsys) -> None:
    """Without a terminal nothing is written, unless `progress=True`, also after ipykernel was imported."""
    importlib.import_module("ipykernel.zmqshell")
    reader = open_fake(long_server)
    observations_df("session-1", reader=reader, cache=False)
    assert capsys.readouterr().err == ""
    observations_df("session-1", reader=reader, cache=False, progress=True)
    assert "Reading traces" in capsys.readouterr().err


def test_json_columns_behave_like_values(fake_server, open_fake, make_row) -> None:
    """Values are parsed when they are read, and survive selecting, concatenating and replacing."""
    texts = ['{"a": 1}', None, '"quoted"', "plain", "[1, 2]"]
    server = fake_server([make_row(number, input=text) for number, text in enumerate(texts)])
    column = observations_df("session-1", reader=open_fake(server), cache=False)["input"]
    values = [{"a": 1}, None, "quoted", "plain", [1, 2]]
    assert column.tolist() == list(column) == values
    assert column[column.notna()].tolist() == [value for value in values if value is not None]
    assert column.iloc[[4, 0]].tolist() == [[1, 2], {"a": 1}]
    assert column.iloc[::-2].tolist() == values[::-2]
    assert pd.concat([column, column]).tolist() == values * 2
    assert column.reindex([0, 9]).isna().tolist() == [False, True]
    assert (column == "plain").tolist() == [False, False, False, True, False]
    assert column.map(type, na_action="ignore").iloc[0] is dict
    changed = column.copy()
    changed[1] = {"b": 2}
    assert (changed[1], column[1]) == ({"b": 2}, None)
    assert column.astype("object").tolist() == values

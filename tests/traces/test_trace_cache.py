"""The cache against the real store: with it and without it, the same frames."""

from __future__ import annotations

import random
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pandas as pd
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from research_kit.errors import ConfigError, ResearchKitError
from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.traces import ALL_SESSIONS, TraceCache, TraceReader, observations_df

_MINUTE_NS = 60 * 10**9

Send = Callable[..., None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    folder = tmp_path_factory.mktemp("store")
    yield ensure_running(folder)
    stop_store(folder)


@pytest.fixture
def requests() -> list[httpx.URL]:
    return []


@pytest.fixture
def reader(store: StoreAddress, requests: list[httpx.URL]) -> Iterator[TraceReader]:
    """Return a reader that notes what it asks the real store for."""
    hooks = {"request": [lambda request: requests.append(request.url)]}
    with httpx.Client(event_hooks=hooks) as client:
        yield TraceReader(store.base_url, store.public_key, store.secret_key, client=client)


@pytest.fixture
def send(store: StoreAddress) -> Send:
    """Return a function that sends spans that began so many minutes ago; the same number is the same span."""
    now_ns = int(datetime.now(UTC).timestamp()) * 10**9

    def post(session_id: str, minutes_ago: dict[int, int], name: str = "step") -> None:
        spans = [
            _span(session_id, number, now_ns - ago * _MINUTE_NS, name) for number, ago in minutes_ago.items()
        ]
        body = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
        )
        httpx.post(
            f"{store.base_url}/api/public/otel/v1/traces",
            content=body.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
            auth=(store.public_key, store.secret_key),
        ).raise_for_status()

    return post


def _span(session_id: str, number: int, begin_ns: int, name: str) -> Span:
    attributes = {
        "session.id": session_id,
        "langfuse.observation.input": '{"n": [1]}' if number % 2 else "plain",
        "langfuse.trace.metadata.number": str(number),
    }
    return Span(
        trace_id=f"{session_id:>14.14}{number // 4:02x}".encode(),
        span_id=(number + 1).to_bytes(8, "big"),
        parent_span_id=(number // 4 * 4 + 1).to_bytes(8, "big") if number % 4 else b"",
        name=name,
        start_time_unix_nano=begin_ns,
        end_time_unix_nano=begin_ns + 10**9,
        attributes=[KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items()],
    )


def _cache(folder: Path, *, minutes: int = 60, max_bytes: int = 10**9) -> TraceCache:
    return TraceCache(("test",), folder=folder, window=timedelta(minutes=minutes), max_bytes=max_bytes)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_a_closed_range_is_read_once(reader, send, requests, tmp_path) -> None:
    """The second read asks for the open range only, and gives the same frame with the same dtypes."""
    send("closed", {0: 300, 1: 200, 2: 150, 3: 10})
    cache = _cache(tmp_path)
    plain = observations_df("closed", reader=reader, cache=False)
    first = observations_df("closed", reader=reader, cache=cache)
    requests.clear()
    again = observations_df("closed", reader=reader, cache=cache)
    pd.testing.assert_frame_equal(plain, first)
    pd.testing.assert_frame_equal(plain, again)
    (asked,) = requests
    begin = datetime.fromisoformat(asked.params["fromStartTime"])
    assert timedelta(minutes=59) < datetime.now(UTC) - begin < timedelta(minutes=70)


def test_a_range_that_is_closed_as_a_whole_asks_nothing(reader, send, requests, tmp_path) -> None:
    """A read that ends before the window is answered from disk, also for a part of it."""
    send("whole", {0: 300, 1: 200, 2: 150})
    cache, now = _cache(tmp_path), datetime.now(UTC)
    span = {"start_time": now - timedelta(hours=6), "end_time": now - timedelta(hours=2)}
    whole = observations_df("whole", reader=reader, cache=cache, **span)
    requests.clear()
    part = observations_df(
        "whole",
        reader=reader,
        cache=cache,
        start_time=span["start_time"],
        end_time=now - timedelta(minutes=180),
    )
    assert requests == []
    assert (len(whole), len(part)) == (3, 2)


@pytest.mark.parametrize("seed", range(6))
def test_with_the_cache_and_without_it_frames_are_equal(reader, send, tmp_path, seed) -> None:
    """Spans that arrive late or change within the window, any ranges, any order of writing and reading."""
    draw = random.Random(seed)
    session, cache, window = f"mixed-{seed}", _cache(tmp_path), 60
    known = {number: draw.randrange(window + 10, 600) for number in range(12)}
    send(session, known)
    for step in range(12):
        if draw.random() < 0.5:
            late = {draw.randrange(100): draw.randrange(0, window - 10) for _ in range(3)}
            send(session, {number: known.setdefault(number, ago) for number, ago in late.items()
                           if known.get(number, ago) < window - 10}, name=f"step-{step}")  # fmt: skip
        else:
            start, end = sorted(draw.sample(range(-1, 700), 2), reverse=True)
            now = datetime.now(UTC)
            span = {
                "start_time": None if start > 600 else now - timedelta(minutes=start, seconds=7),
                "end_time": None if end < 0 else now - timedelta(minutes=end, seconds=7),
            }
            plain = observations_df(session, reader=reader, cache=False, **span)
            pd.testing.assert_frame_equal(plain, observations_df(session, reader=reader, cache=cache, **span))
    pd.testing.assert_frame_equal(
        observations_df(session, reader=reader), observations_df(session, reader=reader, cache=cache)
    )


def test_refresh_finds_deletions(store, reader, send, tmp_path) -> None:
    """A trace that was deleted is in the kept range until `refresh=True`."""
    send("deleted", {0: 300, 4: 200})
    cache = _cache(tmp_path)
    trace_id = observations_df("deleted", reader=reader, cache=cache)["trace_id"][0]
    auth = (store.public_key, store.secret_key)
    httpx.delete(f"{store.base_url}/api/public/traces/{trace_id}", auth=auth).raise_for_status()
    assert len(observations_df("deleted", reader=reader, cache=cache)) == 2
    assert len(observations_df("deleted", reader=reader, cache=cache, refresh=True)) == 1
    assert len(observations_df("deleted", reader=reader, cache=cache)) == 1


@pytest.mark.parametrize("damage", [b"", b"PAR1 rubbish PAR1", None], ids=["empty", "rubbish", "flipped"])
def test_a_damaged_file_is_read_again(reader, send, tmp_path, damage) -> None:
    """A file that is empty, foreign or has one wrong byte is rebuilt; the frame is right."""
    session = f"damaged-{damage!r}"[:14]
    send(session, {0: 300, 1: 200})
    cache = _cache(tmp_path)
    whole = observations_df(session, reader=reader, cache=cache)
    (path,) = _files(tmp_path)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content) if damage is None else damage)
    pd.testing.assert_frame_equal(whole, observations_df(session, reader=reader, cache=cache))
    pd.testing.assert_frame_equal(whole, observations_df(session, reader=reader, cache=cache))


def test_files_are_private(reader, send, tmp_path) -> None:
    """Only the user can read what was kept, and no name shows a key or a session."""
    send("private", {0: 300})
    observations_df("private", reader=reader, cache=_cache(tmp_path))
    found = list((tmp_path / "traces").rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o700, 0o600}
    assert not any("private" in str(path.relative_to(tmp_path)) for path in found)


def test_the_size_is_bounded(reader, send, tmp_path) -> None:
    """Beyond its size the cache deletes what was used longest ago, and reads it again when asked."""
    send("big-1", {0: 300})
    send("big-2", {0: 300})
    observations_df("big-1", reader=reader, cache=_cache(tmp_path))
    (first,) = _files(tmp_path)
    size = first.stat().st_size
    small = _cache(tmp_path, max_bytes=size + size // 2)
    observations_df("big-2", reader=reader, cache=small)
    assert len(_files(tmp_path)) == 1
    assert len(observations_df("big-1", reader=reader, cache=small)) == 1


def test_many_ranges_become_one_file(reader, send, tmp_path) -> None:
    """Ranges that follow one another are joined, so that files do not grow in number."""
    send("joined", {number: 120 + number for number in range(16)})
    cache, now = _cache(tmp_path), datetime.now(UTC).replace(microsecond=0)
    for ago in range(140, 118, -1):
        observations_df(
            "joined",
            reader=reader,
            cache=cache,
            start_time=now - timedelta(minutes=ago),
            end_time=now - timedelta(minutes=ago - 1),
        )
    assert len(_files(tmp_path)) < 12
    pd.testing.assert_frame_equal(
        observations_df("joined", reader=reader), observations_df("joined", reader=reader, cache=cache)
    )


def test_kernels_share_the_cache(store, reader, send, tmp_path) -> None:
    """Reads at the same time, some of them refreshing, all give the whole frame."""
    send("shared", {number: 100 + 10 * number for number in range(12)})
    whole = observations_df("shared", reader=reader)
    found: list[object] = []

    def read(number: int) -> None:
        try:
            with TraceReader(store.base_url, store.public_key, store.secret_key) as own:
                for _ in range(4):
                    frame = observations_df("shared", reader=own, cache=_cache(tmp_path), refresh=number == 0)
                    found.append(frame.equals(whole))
        except (ResearchKitError, OSError) as error:
            found.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 16


def test_a_server_on_this_machine_is_not_cached_unless_asked(reader, send, tmp_path, monkeypatch) -> None:
    """The embedded store is quick and its rows change; `cache=True` keeps them in the user's cache folder."""
    monkeypatch.setenv("RESEARCH_KIT_CACHE_DIR", str(tmp_path))
    send("local", {0: 3000})
    observations_df("local", reader=reader)
    assert _files(tmp_path) == []
    observations_df("local", reader=reader, cache=True)
    assert len(_files(tmp_path)) == 1


def test_a_limit_is_not_kept(reader, send, tmp_path) -> None:
    """What a limit cut off is never taken for everything."""
    send("cut", {0: 300, 1: 200})
    cache = _cache(tmp_path)
    with pytest.warns(UserWarning, match="newest 1 observations"):
        observations_df("cut", reader=reader, cache=cache, limit=1)
    assert len(observations_df("cut", reader=reader, cache=cache)) == 2


def test_reversed_times_are_refused(reader) -> None:
    """A range that ends before it begins is a mistake, with and without the cache."""
    now = datetime.now(UTC)
    with pytest.raises(ConfigError, match="Exchange the two"):
        observations_df(ALL_SESSIONS, reader=reader, start_time=now, end_time=now - timedelta(1), cache=True)

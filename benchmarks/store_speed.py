"""The embedded store: how fast observations become readable and are read, and how it is with a million."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measuring import Options, Row, median
from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.store.observation_row import COLUMNS

_SESSION_SIZE = 60
_BATCH_SIZE = 240
_DEADLINE_S = 120.0
_POLL_S = 0.02
_NS = 1_000_000_000


def measure(options: Options) -> list[Row]:
    """Measure a store of the usual size, then one that has grown for years."""
    span_count = 2_400 if options.is_quick else 12_000
    data_dir = options.folder / "data"
    try:
        rows = _measure_usual(data_dir, span_count, options)
        return rows if options.is_quick else [*rows, *_measure_large(data_dir, span_count, options)]
    finally:
        stop_store(data_dir)


def _measure_usual(data_dir: Path, span_count: int, options: Options) -> list[Row]:
    address = ensure_running(data_dir)
    server = psutil.Process(address.pid)
    bodies = list(make_exports(span_count))
    with _client(address) as client:
        begin_s, begin_cpu_s = time.perf_counter(), _cpu_s(server)
        for body in bodies:
            client.post("/api/public/otel/v1/traces", json=body).raise_for_status()
        sent_s = time.perf_counter() - begin_s
        _wait_until_readable(client, span_count)
        readable_s, cpu_s = time.perf_counter() - begin_s, _cpu_s(server) - begin_cpu_s
    read_s = median(_wall_s(_reading(address)) for _ in range(3 + 4 * options.repeat_count))
    frame_s = median(_wall_s(_reading_all(address, span_count)) for _ in range(options.repeat_count))
    name = f"{span_count:,} observations"
    return [
        Row(name=f"{name} until sent", value=sent_s, unit="s"),
        Row(name=f"{name} until readable", value=readable_s, unit="s", goal=4.0),
        Row(name="CPU of the store, each", value=cpu_s / span_count * 1e6, unit="us"),
        Row(name=f"{name} into a frame", value=frame_s, unit="s", goal=1.5),
        Row(name=f"one session of {_SESSION_SIZE} into a frame", value=read_s * 1e3, unit="ms", goal=20.0),
    ]


def _measure_large(data_dir: Path, span_count: int, options: Options) -> list[Row]:
    """Multiply what is there to a million observations, and ask what a dashboard asks."""
    stop_store(data_dir)
    large_count = _multiply(data_dir / "store.db", 1_000_000 // span_count)
    address = ensure_running(data_dir, timeout_s=120.0)
    server = psutil.Process(address.pid)
    with _client(address) as client:
        _wait_until_rolled_up(data_dir / "store.db")
        counts = range(3 + options.repeat_count)
        by_day_s = median(_wall_s(lambda: _ask_metrics(client, "sum")) for _ in counts)
        percentile_s = median(_wall_s(lambda: _ask_metrics(client, "p95")) for _ in counts)
        session_s = median(_wall_s(lambda: _get_session(client, 3)) for _ in counts)
        memory_mb = server.memory_info().rss / 1e6
    name = f"of {large_count:,}"
    return [
        Row(name=f"{name}: cost by model and day", value=by_day_s, unit="s", goal=1.0),
        Row(name=f"{name}: p95 of latency by model and day", value=percentile_s, unit="s"),
        Row(name=f"{name}: one session of {_SESSION_SIZE}", value=session_s * 1e3, unit="ms", goal=50.0),
        Row(name=f"{name}: memory of the store", value=memory_mb, unit="MB", goal=250.0),
    ]


def _multiply(database: Path, times: int) -> int:
    """Copy every observation ``times - 1`` times, each copy half a day earlier, and return their number."""
    changed = {
        "trace_id": "printf('%08x', :copy) || substr(trace_id, 9)",
        "session_id": "session_id || '-' || :copy",
        "start_ms": "start_ms - :copy * 43200000",
        "end_ms": "end_ms - :copy * 43200000",
    }
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    values = ", ".join(changed.get(name, f'"{name}"') for name in COLUMNS)
    with closing(sqlite3.connect(database)) as connection:
        (first_count,) = connection.execute("SELECT max(rowid) FROM observations").fetchone()
        for copy in range(1, times):
            connection.execute(
                f"INSERT INTO observations ({names}) SELECT {values} FROM observations WHERE rowid <= :last",
                {"copy": copy, "last": first_count},
            )
        connection.commit()
        return int(connection.execute("SELECT count(*) FROM observations").fetchone()[0])


def _wait_until_rolled_up(database: Path) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    with closing(sqlite3.connect(database)) as connection:
        while (count := connection.execute("SELECT count(*) FROM stale_hours").fetchone()[0]) > 0:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{count} hours are not summed up yet")
            time.sleep(_POLL_S)


def _ask_metrics(client: httpx.Client, aggregation: str) -> None:
    measure = "totalCost" if aggregation == "sum" else "latency"
    query = {
        "view": "observations",
        "metrics": [{"measure": measure, "aggregation": aggregation}],
        "dimensions": [{"field": "providedModelName"}],
        "timeDimension": {"granularity": "day"},
        "fromTimestamp": "2020-01-01T00:00:00Z",
        "toTimestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    client.get("/api/public/v2/metrics", params={"query": json.dumps(query)}).raise_for_status()


def _get_session(client: httpx.Client, number: int) -> list[dict[str, Any]]:
    params = {"limit": "1000", "fields": "core,basic,io,usage,model,metadata,trace_context"}
    answer = client.get("/api/public/v2/observations", params={**params, "filter": _session_filter(number)})
    return list(answer.raise_for_status().json()["data"])


def _client(address: StoreAddress) -> httpx.Client:
    keys = (address.public_key, address.secret_key)
    return httpx.Client(base_url=address.base_url, auth=keys, timeout=60.0)


def _reading_all(address: StoreAddress, span_count: int) -> Callable[[], object]:
    from research_kit.traces import ALL_SESSIONS, TraceReader, observations_df

    def read() -> None:
        with TraceReader(address.base_url, address.public_key, address.secret_key) as reader:
            frame = observations_df(ALL_SESSIONS, reader=reader)
        if len(frame) != span_count:
            raise RuntimeError(f"{len(frame)} observations were read instead of {span_count}")

    return read


def _reading(address: StoreAddress) -> Callable[[], object]:
    from research_kit.traces import TraceReader, observations_df

    def read() -> None:
        with TraceReader(address.base_url, address.public_key, address.secret_key) as reader:
            frame = observations_df("session-3", reader=reader)
        if len(frame) != _SESSION_SIZE:
            raise RuntimeError(f"session-3 has {len(frame)} observations instead of {_SESSION_SIZE}")

    return read


def _wait_until_readable(client: httpx.Client, span_count: int) -> None:
    """Wait until the session that was sent last is complete."""
    last = (span_count - 1) // _SESSION_SIZE
    deadline_s = time.monotonic() + _DEADLINE_S
    while True:
        rows = _get_session(client, last)
        if len(rows) == _SESSION_SIZE:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(
                f"only {len(rows)} of {_SESSION_SIZE} observations of session-{last} are readable"
            )
        time.sleep(_POLL_S)


def _session_filter(number: int) -> str:
    return f'[{{"type":"string","column":"sessionId","operator":"=","value":"session-{number}"}}]'


def make_exports(span_count: int) -> Iterator[dict[str, Any]]:
    """Yield exports in OTLP/JSON of sessions with 60 observations each, about 1 KB per observation."""
    begin_ns = time.time_ns() - 3600 * _NS
    for first in range(0, span_count, _BATCH_SIZE):
        spans = [_span(number, begin_ns) for number in range(first, first + _BATCH_SIZE)]
        yield {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "langfuse-sdk"}, "spans": spans}]}]}


def _span(number: int, begin_ns: int) -> dict[str, Any]:
    place = number % 6
    attributes = {
        "session.id": f"session-{number // _SESSION_SIZE}",
        "user.id": "researcher",
        "langfuse.observation.type": "generation" if place == 5 else "chain",
        "langfuse.observation.input": f'{{"question": "{"Which species has the longest bill? " * 10}"}}',
        "langfuse.observation.output": '{"answer": "Gentoo, with 47.5 mm on average."}',
    }
    if place == 5:
        attributes["langfuse.observation.model.name"] = "openai/gpt-4o-mini"
        attributes["langfuse.observation.usage_details"] = '{"input": 900, "output": 40, "total": 940}'
    start_ns = begin_ns + number * _NS // 10
    return {
        "traceId": f"{number // 6 + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "name": f"step-{place}",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + _NS // 20),
        "status": {},
        "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in attributes.items()],
        **({"parentSpanId": f"{number - place + 1:016x}"} if place else {}),
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wall_s(work: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    work()
    return time.perf_counter() - begin_s

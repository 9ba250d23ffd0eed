"""The embedded store: how fast 12,000 observations become readable, and how fast one session is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil

from benchmarks.measuring import Options, Row, median
from research_kit.store import StoreAddress, ensure_running, stop_store

_SESSION_SIZE = 60
_BATCH_SIZE = 240
_DEADLINE_S = 120.0
_POLL_S = 0.02
_NS = 1_000_000_000


def measure(options: Options) -> list[Row]:
    """Return numbers only: nothing that a user would use instead runs without servers of its own."""
    span_count = 2_400 if options.is_quick else 12_000
    data_dir = options.folder / "data"
    address = ensure_running(data_dir)
    server = psutil.Process(address.pid)
    try:
        with httpx.Client(
            base_url=address.base_url, auth=(address.public_key, address.secret_key), timeout=30.0
        ) as client:
            begin_s, begin_cpu_s = time.perf_counter(), _cpu_s(server)
            for body in _exports(span_count):
                client.post("/api/public/otel/v1/traces", json=body).raise_for_status()
            sent_s = time.perf_counter() - begin_s
            _wait_until_readable(client, span_count)
            readable_s, cpu_s = time.perf_counter() - begin_s, _cpu_s(server) - begin_cpu_s
        read_s = median(_wall_s(_reading(address)) for _ in range(3 + 4 * options.repeat_count))
    finally:
        stop_store(data_dir)
    return [
        Row(name=f"{span_count:,} observations until sent", value=sent_s, unit="s"),
        Row(name=f"{span_count:,} observations until readable", value=readable_s, unit="s"),
        Row(name="CPU of the store, each", value=cpu_s / span_count * 1e6, unit="us"),
        Row(name=f"observations_df of a session of {_SESSION_SIZE}", value=read_s * 1e3, unit="ms"),
    ]


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
    query = {"limit": "1000", "filter": _session_filter(last)}
    deadline_s = time.monotonic() + _DEADLINE_S
    while True:
        rows = client.get("/api/public/v2/observations", params=query).raise_for_status().json()["data"]
        if len(rows) == _SESSION_SIZE:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(
                f"only {len(rows)} of {_SESSION_SIZE} observations of session-{last} are readable"
            )
        time.sleep(_POLL_S)


def _session_filter(number: int) -> str:
    return f'[{{"type":"string","column":"sessionId","operator":"=","value":"session-{number}"}}]'


def _exports(span_count: int) -> Iterator[dict[str, Any]]:
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

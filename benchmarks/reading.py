"""Reading observations into a frame: CPU against plain httpx, json and pandas, memory, cache and streams.

The server gives the same pages to each way of reading; the CPU is that of this process alone. Memory is
measured in processes of their own.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.measuring import ROOT, Options, Row, median

if TYPE_CHECKING:
    import pandas as pd

ROW_COUNT = 20_000
_BEGIN = datetime(2026, 11, 20, 9, tzinfo=UTC)
_KEYS = ("pk-lf-bench", "sk-lf-bench")
_BASELINE = "httpx and json into a frame"
_OWN = "observations_df"
_SDK_DICT, _SDK_DUMP = "Langfuse SDK, get_many and dict()", "Langfuse SDK, get_many and model_dump()"
_MANY, _VERY_MANY = 100_000, 1_000_000


def make_row(number: int) -> dict[str, Any]:
    """Return an observation of about 2 kB, every fourth a generation."""
    is_call, place = number % 4 == 3, number % 8
    second = f"{_BEGIN + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S}"
    return {
        "id": f"{number:016x}",
        "traceId": f"{number // 8:032x}",
        "startTime": f"{second}.125Z",
        "endTime": f"{second}.625Z",
        "projectId": "project",
        "parentObservationId": f"{number - place:016x}" if place else None,
        "isRootObservation": place == 0,
        "type": "GENERATION" if is_call else "CHAIN",
        "name": f"step-{place}",
        "level": "DEFAULT",
        "statusMessage": "",
        "version": "1.4.0",
        "environment": "default",
        "completionStartTime": "2026-11-20T09:00:00.249Z" if is_call else None,
        "createdAt": "2026-11-20T09:00:00.249Z",
        "updatedAt": "2026-11-20T09:00:00.249Z",
        "input": json.dumps([{"role": "user", "content": f"question {number} " * 30}]),
        "output": "The answer is in the table. " * 15,
        "metadata": {f"resourceAttributes.key-{n}": f"value of key {n}" for n in range(10)},
        "model": "gpt-4o" if is_call else "",
        "modelParameters": {},
        "usageDetails": {"input": 1500, "output": 40, "total": 1540} if is_call else {},
        "inputUsage": 1500 if is_call else 0,
        "outputUsage": 40 if is_call else 0,
        "totalUsage": 1540 if is_call else 0,
        "costDetails": {"input": 0.00375, "output": 0.0004, "total": 0.00415} if is_call else {},
        "inputCost": 0.00375 if is_call else None,
        "outputCost": 0.0004 if is_call else None,
        "totalCost": 0.00415 if is_call else 0,
        "promptId": "",
        "promptName": "",
        "promptVersion": None,
        "usagePricingTierId": None,
        "usagePricingTierName": None,
        "latency": 0.5,
        "timeToFirstToken": 0.12 if is_call else None,
        "userId": f"user-{number // 8 % 5}",
        "sessionId": f"session-{number // 8 % 50}",
        "traceName": None,
        "release": "",
        "tags": ["support", "beta"],
        "bookmarked": False,
        "public": False,
        "modelId": None,
        "inputPrice": None,
        "outputPrice": None,
        "totalPrice": None,
    }


def serve(port: Any) -> None:
    """Serve pages until the process is ended; a session ``rows-<n>`` has the first n rows."""
    prepared = [json.dumps(make_row(number)) for number in range(ROW_COUNT)]

    def row(number: int) -> str:
        return prepared[number] if number < ROW_COUNT else json.dumps(make_row(number))

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Give one page."""
            query = parse_qs(urlsplit(self.path).query)
            count = int(query.get("sessionId", [f"rows-{ROW_COUNT}"])[0].removeprefix("rows-"))
            first = int(query.get("cursor", ["0"])[0])
            end = min(first + int(query.get("limit", ["50"])[0]), count)
            meta = json.dumps({"cursor": str(end)} if end < count else {})
            body = f'{{"data": [{",".join(map(row, range(first, end)))}], "meta": {meta}}}'.encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    port.send(server.server_address[1])
    server.serve_forever()


def read_json(base_url: str) -> list[dict[str, Any]]:
    """Read all pages with httpx and json, the least that any frame can take."""
    import httpx

    rows: list[dict[str, Any]] = []
    params = {"limit": "1000"}
    with httpx.Client(auth=_KEYS) as client:
        while True:
            body = client.get(f"{base_url}/api/public/v2/observations", params=params).json()
            rows += body["data"]
            if not body["meta"]:
                return rows
            params["cursor"] = body["meta"]["cursor"]


def read_with_sdk(base_url: str, convert: str) -> pd.DataFrame:
    """Read as the documentation of the Langfuse SDK suggests; ``convert`` is the method of its rows."""
    import pandas as pd
    from langfuse.api.client import LangfuseAPI

    api = LangfuseAPI(base_url=base_url, username=_KEYS[0], password=_KEYS[1])
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = api.observations.get_many(limit=1000, cursor=cursor)
        rows += [getattr(row, convert)() for row in page.data]
        cursor = page.meta.cursor
        if cursor is None:
            return pd.DataFrame(rows)


def measure(options: Options) -> list[Row]:
    """Return CPU, memory and times of every way of reading."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    try:
        base_url = f"http://127.0.0.1:{receiver.recv()}"
        rows = [*_cpu_rows(base_url, options), *_cache_rows(base_url, options)]
        return rows if options.is_quick else [*rows, *_memory_rows(base_url, options)]
    finally:
        server.terminate()
        server.join()


def _cpu_rows(base_url: str, options: Options) -> Iterator[Row]:
    ways, slow_ways = _ways(base_url), _slow_ways(base_url)
    for read in ways.values() if not options.is_quick else ():
        read()  # first use loads libraries
    times: dict[str, list[float]] = {name: [] for name in (*ways, *slow_ways)}
    for _ in range(options.repeat_count):
        for name, read in ways.items():
            times[name].append(_cpu_s(read))
    for name, read in slow_ways.items():
        times[name].append(_cpu_s(read))
    medians = {name: median(cpu_s) for name, cpu_s in times.items()}
    own_s = medians[_OWN]
    yield Row(name=f"{_OWN}, {ROW_COUNT:,} observations", value=own_s, unit="CPU s", goal=1.0)
    goals = {_BASELINE: 1.25, _SDK_DICT: 0.05}
    for other in (_BASELINE, *slow_ways):
        yield Row(
            name=_OWN,
            value=own_s,
            unit="CPU s",
            against=other,
            ratio=own_s / medians[other],
            goal=goals.get(other),
            goal_of="ratio",
        )
    for name in (*ways, *slow_ways):
        if name != _OWN:
            yield Row(name=name, value=medians[name], unit="CPU s")


def _cache_rows(base_url: str, options: Options) -> Iterator[Row]:
    """Read again what is kept on disk."""
    from research_kit.traces import TraceCache, TraceReader, observations_df

    cache = TraceCache(("bench",), folder=options.folder, window=timedelta(0))
    with TraceReader(base_url, *_KEYS) as reader:
        for count, goal_s in ((12_000, 0.1), (_MANY, 0.25)):

            def read(count: int = count) -> None:
                end = _BEGIN + timedelta(days=30)
                frame = observations_df(f"rows-{count}", reader=reader, cache=cache, end_time=end)
                assert len(frame) == count

            read()
            again_s = median(_wall_s(read) for _ in range(2 + options.repeat_count))
            yield Row(name=f"{count:,} again from the cache", value=again_s, unit="s", goal=goal_s)


def _memory_rows(base_url: str, options: Options) -> Iterator[Row]:
    for what, unit, goal in (
        ("frame", "x the frame", 2.0),
        ("stream", "MB", 1_000.0),
    ):
        count = ROW_COUNT if what == "frame" else _VERY_MANY
        arguments = ["-m", "benchmarks.reading_worker", what, base_url, str(count), str(options.folder)]
        printed = subprocess.run(
            [sys.executable, *arguments],
            env=options.environment(what),
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        name = f"{count:,} observations into a frame" if what == "frame" else f"{count:,} streamed to Parquet"
        yield Row(name=f"{name}: peak memory", value=float(printed), unit=unit, goal=goal)


def _ways(base_url: str) -> dict[str, Callable[[], object]]:
    import pandas as pd

    from research_kit.traces import ALL_SESSIONS, TraceReader, cost_by, observations_df, sessions_df

    reader = TraceReader(base_url, *_KEYS)
    frame = observations_df(ALL_SESSIONS, reader=reader)
    return {
        _BASELINE: lambda: pd.DataFrame(read_json(base_url)),
        _OWN: lambda: observations_df(ALL_SESSIONS, reader=reader),
        "sessions_df": lambda: sessions_df(reader=reader),
        "cost_by on that frame": lambda: cost_by(frame, ["session", "tool"]),
    }


def _slow_ways(base_url: str) -> dict[str, Callable[[], object]]:
    """Return the ways that take so long that once is enough."""
    return {
        _SDK_DICT: lambda: read_with_sdk(base_url, "dict"),
        _SDK_DUMP: lambda: read_with_sdk(base_url, "model_dump"),
    }


def _cpu_s(read: Callable[[], object]) -> float:
    begin_s = time.process_time()
    read()
    return time.process_time() - begin_s


def _wall_s(read: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    read()
    return time.perf_counter() - begin_s

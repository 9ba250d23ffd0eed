"""CPU of reading 20,000 observations into a frame, against plain httpx, json and pandas.

The server gives the same prepared pages to each way of reading; only the CPU time of this process counts.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.measuring import Options, Row, median

if TYPE_CHECKING:
    import pandas as pd

ROW_COUNT = 20_000
_BEGIN = datetime(2026, 11, 20, 9, tzinfo=UTC)
_KEYS = ("pk-lf-bench", "sk-lf-bench")
_BASELINE = "httpx and json into a frame"
_GOALS = {"observations_df": 1.25}


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
    """Serve pages of 1,000 rows until the process is ended."""
    rows = [json.dumps(make_row(number)) for number in range(ROW_COUNT)]

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Give one page."""
            query = parse_qs(urlsplit(self.path).query)
            first = int(query.get("cursor", ["0"])[0])
            end = first + int(query.get("limit", ["50"])[0])
            meta = json.dumps({"cursor": str(end)} if end < ROW_COUNT else {})
            body = f'{{"data": [{",".join(rows[first:end])}], "meta": {meta}}}'.encode()
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


def read_with_sdk(base_url: str) -> pd.DataFrame:
    """Read as the documentation of the Langfuse SDK suggests."""
    import pandas as pd
    from langfuse.api.client import LangfuseAPI

    api = LangfuseAPI(base_url=base_url, username=_KEYS[0], password=_KEYS[1])
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = api.observations.get_many(limit=1000, cursor=cursor)
        rows += [row.dict() for row in page.data]
        cursor = page.meta.cursor
        if cursor is None:
            return pd.DataFrame(rows)


def measure(options: Options) -> list[Row]:
    """Return the CPU of every way of reading, as ratios to the least that any frame can take."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    try:
        ways = _ways(f"http://127.0.0.1:{receiver.recv()}", options.folder)
        for read in ways.values() if not options.is_quick else ():
            read()  # first use loads libraries
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(min(options.repeat_count, 3)):
            for name, read in ways.items():
                times[name].append(_cpu_s(read))
    finally:
        server.terminate()
        server.join()
    baseline_s = median(times[_BASELINE])
    return [
        Row(
            name=name,
            value=median(cpu_s),
            unit="CPU s",
            goal=_GOALS.get(name),
            goal_of="ratio",
            against="" if name == _BASELINE else _BASELINE,
            ratio=None if name == _BASELINE else median(cpu_s) / baseline_s,
        )
        for name, cpu_s in times.items()
    ]


def _ways(base_url: str, folder: Path) -> dict[str, Callable[[], object]]:
    import pandas as pd

    from research_kit.traces import (
        ALL_SESSIONS,
        TraceCache,
        TraceReader,
        cost_by,
        observations_df,
        sessions_df,
    )

    reader = TraceReader(base_url, *_KEYS)
    cache = TraceCache(("bench",), folder=folder, window=timedelta(0))
    kept = {"cache": cache, "end_time": _BEGIN + timedelta(days=1)}
    frame = observations_df(ALL_SESSIONS, reader=reader)
    return {
        _BASELINE: lambda: pd.DataFrame(read_json(base_url)),
        "observations_df": lambda: observations_df(ALL_SESSIONS, reader=reader),
        "observations_df, from the cache": lambda: observations_df(ALL_SESSIONS, reader=reader, **kept),
        "sessions_df": lambda: sessions_df(reader=reader),
        "cost_by on that frame": lambda: cost_by(frame, ["session", "tool"]),
        "Langfuse SDK, get_many and dict()": lambda: read_with_sdk(base_url),
    }


def _cpu_s(read: Callable[[], object]) -> float:
    begin_s = time.process_time()
    read()
    return time.process_time() - begin_s

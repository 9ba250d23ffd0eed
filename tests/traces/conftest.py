"""Rows as a server sends them, a server made of rows, and a clock that waits for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pandas as pd
import pytest

from research_kit.traces import TraceReader
from research_kit.traces.frames import build_observations

START = datetime(2026, 11, 20, 9, tzinfo=UTC)


class FakeClock:
    """Waiting takes no time; every wait is noted and moves the clock."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def now_s(self) -> float:
        return sum(self.waits_s)

    def sleep_s(self, duration_s: float) -> None:
        self.waits_s.append(duration_s)


class FakeServer:
    """Answers of a Langfuse server: scripted ones first, then pages of its rows."""

    def __init__(
        self, rows: Sequence[dict[str, Any]] = (), script: Sequence[httpx.Response | Exception] = ()
    ) -> None:
        self.rows = list(rows)
        self.script = list(script)
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            return step
        return self.page(request)

    def page(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        names = {name: name for name in ("sessionId", "traceId", "type", "name")}
        found = [
            row
            for row in self.rows
            if all(row.get(key) in params[name].split(",") for name, key in names.items() if name in params)
            and params.get("fromStartTime", "") <= row.get("startTime", "") < params.get("toStartTime", "9")
        ]
        first = int(params.get("cursor", 0))
        end = first + int(params.get("limit", 50))
        meta = {"cursor": str(end)} if end < len(found) else {}
        has_io = "io" in params.get("fields", "io").split(",")
        hidden = () if has_io else ("input", "output")
        rows = [{key: row[key] for key in row if key not in hidden} for row in found[first:end]]
        return httpx.Response(200, json={"data": rows, "meta": meta})

    @property
    def limits(self) -> list[int]:
        return [int(request.url.params["limit"]) for request in self.requests]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_server() -> type[FakeServer]:
    return FakeServer


@pytest.fixture
def open_fake(clock: FakeClock) -> Iterator[Callable[[FakeServer], TraceReader]]:
    """Return a function that opens a reader on a fake server."""
    with ExitStack() as stack:

        def open_reader(server: FakeServer) -> TraceReader:
            client = stack.enter_context(httpx.Client(transport=httpx.MockTransport(server.answer)))
            return TraceReader(
                "http://langfuse.test/", "pk-lf-test", "sk-lf-test", client=client, clock=clock
            )

        yield open_reader


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    """Return a function that makes one observation as a server of version 4 sends it."""

    def make(number: int = 0, **changes: Any) -> dict[str, Any]:
        begin = START + timedelta(seconds=number)
        row = {
            "id": f"{number:016x}",
            "traceId": "trace-1",
            "startTime": _wire_time(begin),
            "endTime": _wire_time(begin + timedelta(milliseconds=500)),
            "completionStartTime": None,
            "parentObservationId": None,
            "isRootObservation": changes.get("parentObservationId") is None,
            "type": "SPAN",
            "name": f"step-{number}",
            "traceName": None,
            "level": "DEFAULT",
            "statusMessage": "",
            "version": "",
            "release": "",
            "environment": "default",
            "sessionId": "session-1",
            "userId": "alice",
            "tags": ["jupyter", "chat"],
            "input": None,
            "output": None,
            "metadata": {},
            "model": "",
            "usageDetails": {},
            "inputUsage": 0,
            "outputUsage": 0,
            "totalUsage": 0,
            "costDetails": {},
            "inputCost": None,
            "outputCost": None,
            "totalCost": 0,
            "promptName": "",
            "latency": 0.5,
            "timeToFirstToken": None,
        }
        return row | changes

    return make


@pytest.fixture
def make_call(make_row: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a function that makes one generation with usage, and with a cost unless it is None."""

    def make(
        number: int, *, cost: float | None, tokens: tuple[int, int] = (100, 10), **changes: Any
    ) -> dict[str, Any]:
        into, out = tokens
        usage = {"usageDetails": {"input": into, "output": out, "total": into + out}}
        sums = {"inputUsage": into, "outputUsage": out, "totalUsage": into + out}
        price = {} if cost is None else {"costDetails": {"total": cost}, "totalCost": cost}
        fixed = {"type": "GENERATION", "model": "gpt-4o-mini"}
        return make_row(number, **(fixed | usage | sums | price | changes))

    return make


@pytest.fixture
def frame_of() -> Callable[[Sequence[dict[str, Any]]], pd.DataFrame]:
    """Return a function that makes an observations frame of rows."""
    return build_observations


def _wire_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

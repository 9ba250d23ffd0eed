"""A session as frames: messages with tools and an error, a cell, and scores."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from research_kit.traces.frames import build_frame, build_observations
from research_kit.traces.schema import SCORES

START = datetime(2026, 11, 20, 9, 12, 4, tzinfo=UTC)


def wire_time(offset_s: float) -> str:
    moment = START + timedelta(seconds=offset_s)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def row(observation_id: str, trace: int, begin_s: float, end_s: float, **changes: Any) -> dict[str, Any]:
    """Return an observation as a server sends it; ``tokens`` and ``cost`` are its usage."""
    into, out = changes.pop("tokens", (0, 0))
    cost = changes.pop("cost", None)
    values = {
        "id": observation_id,
        "traceId": f"{trace:032x}",
        "startTime": wire_time(begin_s),
        "endTime": wire_time(end_s),
        "latency": end_s - begin_s,
        "isRootObservation": "parentObservationId" not in changes,
        "type": "SPAN",
        "name": observation_id,
        "level": "DEFAULT",
        "environment": "default",
        "sessionId": "pilot",
        "userId": "nora",
        "tags": ["chat"],
        "metadata": {},
        "usageDetails": {"input": into, "output": out, "total": into + out} if into else {},
        "inputUsage": into,
        "outputUsage": out,
        "totalUsage": into + out,
        "costDetails": {} if cost is None else {"total": cost},
    }
    texts = {name: json.dumps(changes[name]) for name in ("input", "output") if name in changes}
    return values | changes | texts


def session_rows() -> list[dict[str, Any]]:
    """Return a message with a tool and two calls, one that failed, and a cell with calls of two models."""
    answer = {"input": "How heavy?", "output": "It weighs **5,076 g**.", "metadata": {"message_number": 1}}
    failed = {"input": "Plot it.", "level": "ERROR", "statusMessage": "TimeoutError: no answer"}
    call = {"type": "GENERATION", "model": "m-small", "tokens": (100, 10), "cost": 0.001}
    tool = {"type": "TOOL", "input": {"column": "mass"}, "output": 5076}
    return [
        row("chat-1", 1, 0, 4, **answer, name="chat"),
        row("call-1", 1, 0.5, 1.5, parentObservationId="chat-1", timeToFirstToken=0.4, **call),
        row("query", 1, 1.5, 2, parentObservationId="chat-1", **tool),
        row("server-side", 1, 1.6, 1.9, parentObservationId="query", **tool),
        row("call-2", 1, 2, 4, parentObservationId="chat-1", **call),
        row("chat-2", 2, 1000, 1003, **failed, name="chat", metadata={"message_number": 2}),
        row("cell", 3, 1010, 1013, name="cell [7]", metadata={"execution_count": 7, "source_hash": "f"}),
        row("call-3", 3, 1010, 1012, parentObservationId="cell", **call | {"model": "m-large", "cost": None}),
    ]


def score_row(
    number: int, name: str, value: Any, kind: str, subject_id: str, **changes: Any
) -> dict[str, Any]:
    data_type = {bool: "BOOLEAN", float: "NUMERIC"}.get(type(value), "CATEGORICAL")
    subject = {"kind": kind, "id": subject_id}
    values = {"id": str(number), "name": name, "value": value, "dataType": data_type, "subject": subject}
    return values | {"timestamp": wire_time(0), "source": "API", "environment": "default"} | changes


@pytest.fixture(scope="session")
def observations() -> pd.DataFrame:
    return build_observations(session_rows())


@pytest.fixture(scope="session")
def scores() -> pd.DataFrame:
    return build_frame(
        SCORES,
        [
            score_row(1, "helpful", True, "trace", f"{1:032x}", comment="exact"),
            score_row(2, "tone", "brief", "trace", f"{2:032x}"),
            score_row(3, "share", 0.5, "session", "pilot"),
        ],
    )

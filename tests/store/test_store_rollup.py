"""Sums per hour: whatever has been rolled up so far, metrics answer the same."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exports import START_NS, export_of, make_span
from starlette.datastructures import Headers, QueryParams

from research_kit.store.database import Database
from research_kit.store.deletion import delete_traces
from research_kit.store.ingest import ingest_traces
from research_kit.store.metrics_query import MetricsQuery, parse_metrics_query
from research_kit.store.metrics_rows import read_metrics
from research_kit.store.rollup import refresh_quiet_hours, source

HEADERS = Headers({"content-type": "application/json"})
HOUR_NS = 3_600_000_000_000
# No hour can tell which trace: with this condition every query reads the observations themselves.
ANY_TRACE = {"column": "traceId", "type": "string", "operator": "does not contain", "value": "none"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "store.db")
    yield opened
    opened.close()


def send(database: Database, numbers: list[int], chance: random.Random) -> None:
    """Send spans of ten hours; the same number is always the same span, with other values each time."""
    ingest_traces(database, HEADERS, json.dumps(export_of(*(one_span(n, chance) for n in numbers))).encode())


def one_span(number: int, chance: random.Random) -> dict[str, Any]:
    is_generation = number % 3 == 0
    span = make_span(
        number,
        trace=number // 4 + 1,
        parent=None if number % 4 == 0 else number - number % 4,
        name=chance.choice(["step", "call"]),
        user__id=chance.choice(["ann", "bob"]),
        langfuse__observation__type="generation" if is_generation else "tool",
        langfuse__observation__level=chance.choice(["DEFAULT", "ERROR"]),
    )
    if is_generation:
        usage, cost = {"input": chance.randrange(99), "output": 7}, {"total": chance.random()}
        more = {
            "langfuse.observation.model.name": chance.choice(["small", "large"]),
            "langfuse.observation.usage_details": json.dumps(usage),
            "langfuse.observation.cost_details": json.dumps(cost),
        }
        span["attributes"] += [{"key": key, "value": {"stringValue": text}} for key, text in more.items()]
    start_ns = START_NS + number * HOUR_NS // 40
    span["startTimeUnixNano"] = str(start_ns)
    span["endTimeUnixNano"] = str(start_ns + chance.randrange(9) * 100_000_000)
    return span


def query_of(**parts: Any) -> MetricsQuery:
    query = {
        "view": "observations",
        "metrics": [
            {"measure": "count", "aggregation": "count"},
            {"measure": "totalCost", "aggregation": "sum"},
            {"measure": "latency", "aggregation": "avg"},
            {"measure": "timeToFirstToken", "aggregation": "sum"},
            {"measure": "inputTokens", "aggregation": "count"},
        ],
        "fromTimestamp": "2026-11-20T09:20:00Z",
        "toTimestamp": "2026-11-20T17:40:00Z",
        **parts,
    }
    return parse_metrics_query(QueryParams({"query": json.dumps(query)}))


QUESTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "count": {"metrics": []},
    "model and day": {
        "dimensions": [{"field": "providedModelName"}],
        "timeDimension": {"granularity": "day"},
    },
    "hours": {"dimensions": [{"field": "type"}], "timeDimension": {"granularity": "hour"}},
    "month": {"dimensions": [{"field": "startTimeMonth"}, {"field": "isRootObservation"}]},
    "errors": {
        "dimensions": [{"field": "name"}],
        "filters": [{"column": "level", "type": "stringOptions", "operator": "any of", "value": ["ERROR"]}],
    },
    "nothing": {"filters": [{"column": "name", "type": "string", "operator": "=", "value": "absent"}]},
    "before all": {"fromTimestamp": "2020-01-01T00:00:00Z", "toTimestamp": "2020-01-02T00:00:00Z"},
}


def labels_of(row: dict[str, Any]) -> str:
    """Return what a row is grouped by."""
    return json.dumps([value for value in row.values() if isinstance(value, str | bool)])


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, but for the order in which parts of a number were added."""
    are_numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=1e-12) if are_numbers else one == other


def answers(database: Database, parts: dict[str, Any]) -> tuple[Any, Any]:
    """Return what sums per hour and what the observations answer."""
    rolled, plain = (
        query_of(**parts),
        query_of(**{**parts, "filters": [*parts.get("filters", []), ANY_TRACE]}),
    )
    assert source(rolled)
    assert not source(plain)
    with database.reading() as connection:
        return tuple(
            sorted(read_metrics(connection, query)["data"], key=labels_of) for query in (rolled, plain)
        )


def assert_same(database: Database) -> None:
    for name, parts in QUESTIONS.items():
        found, expected = answers(database, parts)
        assert len(found) == len(expected), name
        for row, other in zip(found, expected, strict=True):
            assert row.keys() == other.keys()
            assert all(is_same(row[key], other[key]) for key in row), f"{name}: {row} instead of {other}"


def roll_up(database: Database) -> dict[int, int]:
    return refresh_quiet_hours(database, refresh_quiet_hours(database, {}))


def test_rollup_answers_as_the_observations_do(database: Database) -> None:
    """After any order of sending, sending again, deleting and rolling up, both ways agree."""
    chance = random.Random(7)
    for _ in range(12):
        match chance.choice(["send", "send", "delete", "roll up"]):
            case "send":
                send(database, chance.sample(range(400), 60), chance)
            case "delete":
                delete_traces(database, [f"{chance.randrange(100) + 1:032x}"])
            case _:
                assert roll_up(database) == {}
        assert_same(database)
    assert roll_up(database) == {}
    assert_same(database)


def test_rollup_leaves_an_hour_that_changes_meanwhile(database: Database) -> None:
    """Hours in which something happened since the last look are not rolled up, and stay right."""
    chance = random.Random(1)
    send(database, [0, 1, 50], chance)
    first_look = refresh_quiet_hours(database, {})
    assert len(first_look) == 2
    send(database, [1], chance)
    assert len(refresh_quiet_hours(database, first_look)) == 1
    assert_same(database)


@pytest.mark.parametrize(
    "parts",
    [
        {"timeDimension": {"granularity": "minute"}},
        {"dimensions": [{"field": "toolNames"}]},
        {"metrics": [{"measure": "latency", "aggregation": "p95"}]},
        {"metrics": [{"measure": "latency", "aggregation": "max"}]},
        {"fromTimestamp": "2026-11-20T09:20:00Z", "toTimestamp": "2026-11-20T09:40:00Z"},
        {
            "filters": [
                {"column": "start_time", "type": "datetime", "operator": ">", "value": "2026-11-20T10:00:00Z"}
            ]
        },
        {"view": "scores-numeric", "metrics": [{"measure": "count", "aggregation": "count"}]},
    ],
    ids=["minutes", "joins", "percentile", "max", "part of an hour", "time filter", "scores"],
)
def test_rollup_refuses_what_sums_cannot_tell(parts: dict[str, Any]) -> None:
    """Such queries read the observations themselves."""
    assert source(query_of(**parts)) is None

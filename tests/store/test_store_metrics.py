"""Metrics: groups, time, filters, refusals, and the official client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from exports import START_NS, export_of, make_span

from research_kit.store import StoreAddress
from research_kit.store.metrics_numbers import histogram, quantile
from research_kit.store.metrics_time import get_granularity
from research_kit.store.metrics_tools import called_tools, defined_tools
from research_kit.store.times import iso_to_ms

Ask = Callable[..., httpx.Response]

# The spans begin on 2026-11-20 at 09:00, one per second.
_FROM, _TO = "2026-11-20T08:00:00Z", "2026-11-20T11:00:00Z"
_COUNT = {"measure": "count", "aggregation": "count"}
_CALL = {"tool_calls": [{"function": {"name": "add"}}, {"function": {"name": "add"}}]}


@pytest.fixture(scope="module")
def ask(store: StoreAddress) -> Ask:
    """Ask for metrics of five generations, three tools and an answer with tool calls."""
    spans = [
        make_span(
            number,
            langfuse__observation__type="generation",
            langfuse__observation__model__name=f"model-{number % 2}",
            langfuse__observation__usage_details=json.dumps({"input": number * 10, "output": 2}),
            langfuse__observation__cost_details='{"total": 0.5}',
            session__id="metrics",
        )
        for number in range(1, 6)
    ]
    spans += [make_span(number, langfuse__observation__type="tool") for number in range(6, 9)]
    spans.append(make_span(9, langfuse__observation__output=json.dumps(_CALL)))
    auth = (store.public_key, store.secret_key)
    sent = httpx.post(f"{store.base_url}/api/public/otel/v1/traces", json=export_of(*spans), auth=auth)
    assert sent.status_code == 200, sent.text

    def ask_metrics(**parts: Any) -> httpx.Response:
        query = {
            "view": "observations",
            "metrics": [_COUNT],
            "fromTimestamp": _FROM,
            "toTimestamp": _TO,
            **parts,
        }
        url = f"{store.base_url}/api/public/v2/metrics"
        return httpx.get(url, params={"query": json.dumps(query)}, auth=auth)

    return ask_metrics


def _rows(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def _metric(measure: str, *aggregations: str) -> list[dict[str, str]]:
    return [{"measure": measure, "aggregation": aggregation} for aggregation in aggregations]


def _fields(*names: str) -> list[dict[str, str]]:
    return [{"field": name} for name in names]


def test_metrics_group_by_model(ask: Ask) -> None:
    """Groups come by the first metric, with every aggregation under its own name."""
    metrics = [*_metric("inputTokens", "sum", "max", "p50"), *_metric("totalCost", "avg")]
    rows = _rows(ask(metrics=metrics, dimensions=_fields("providedModelName")))
    first, second, without_model = rows
    assert first == {
        "providedModelName": "model-1",
        "sum_inputTokens": 90,
        "max_inputTokens": 50,
        "p50_inputTokens": 30,
        "avg_totalCost": 0.5,
    }
    assert (second["providedModelName"], second["sum_inputTokens"]) == ("model-0", 60)
    assert (without_model["providedModelName"], without_model["avg_totalCost"]) == (None, 0)


def test_metrics_durations_are_milliseconds(ask: Ask) -> None:
    """A span of one second has a latency of 1000."""
    assert _rows(ask(metrics=_metric("latency", "max"))) == [{"max_latency": 1000}]


def test_metrics_fill_hours_without_rows(ask: Ask) -> None:
    """Without an order every bucket up to the end is there; with one only those that have rows."""
    hourly = {"timeDimension": {"granularity": "hour"}, "metrics": [_COUNT, *_metric("latency", "max")]}
    filled = _rows(ask(**hourly, dimensions=_fields("level")))
    assert [row["time_dimension"][11:13] for row in filled] == ["08", "09", "10"]
    assert filled[0] == {
        "level": "",
        "time_dimension": "2026-11-20T08:00:00Z",
        "count_count": 0,
        "max_latency": None,
    }
    assert filled[1]["count_count"] == 9
    ordered = _rows(ask(**hourly, orderBy=[{"field": "time_dimension", "direction": "desc"}]))
    assert [row["count_count"] for row in ordered] == [9]


def test_metrics_end_is_inclusive(ask: Ask) -> None:
    """A row at the very end of the range counts."""
    assert _rows(ask(toTimestamp="2026-11-20T09:00:01Z")) == [{"count_count": 1}]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"type": "string", "column": "sessionId", "operator": "=", "value": "metrics"}, 5),
        ({"type": "null", "column": "sessionId", "operator": "is null", "value": ""}, 4),
        ({"type": "stringOptions", "column": "type", "operator": "any of", "value": ["TOOL", "x"]}, 3),
        ({"type": "stringOptions", "column": "type", "operator": "none of", "value": ["TOOL"]}, 6),
        ({"type": "boolean", "column": "isRootObservation", "operator": "=", "value": False}, 0),
        ({"type": "string", "column": "name", "operator": "ends with", "value": "-7"}, 1),
        ({"type": "arrayOptions", "column": "calledToolNames", "operator": "all of", "value": ["add"]}, 1),
        ({"type": "datetime", "column": "start_time", "operator": ">=", "value": "2026-11-20T09:00:08Z"}, 2),
    ],
    ids=lambda value: f"{value['column']}-{value['operator']}" if isinstance(value, dict) else str(value),
)
def test_metrics_filters(ask: Ask, wanted: dict[str, Any], count: int) -> None:
    """A filter leaves the rows that fulfil it."""
    assert _rows(ask(filters=[wanted])) == [{"count_count": count}]


def test_metrics_spread_usage_and_tools(ask: Ask) -> None:
    """Kinds of usage and names of called tools become groups of their own."""
    usage = {
        row["usageType"]: row["sum_usageByType"] for row in _rows(ask(metrics=_metric("usageByType", "sum")))
    }
    assert usage == {"input": 150, "output": 10, "total": 160}
    assert _rows(ask(metrics=_metric("toolCalls", "sum"))) == [{"sum_toolCalls": 2}]
    assert _rows(ask(dimensions=_fields("calledToolNames"))) == [{"calledToolNames": "add", "count_count": 2}]


def test_metrics_top_sessions(ask: Ask) -> None:
    """A dimension of many values can be grouped for its top rows."""
    order = [{"field": "count_count", "direction": "desc"}]
    rows = _rows(ask(dimensions=_fields("sessionId"), orderBy=order, config={"row_limit": 1}))
    assert rows == [{"sessionId": "metrics", "count_count": 5}]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"view": "traces"}, "Invalid request data"),
        ({"toTimestamp": _FROM}, "Invalid request data"),
        ({"fromTimestamp": "0001-01-01T00:00:00+14:00"}, "Invalid request data"),
        ({"config": {"row_limit": 1001}}, "Invalid request data"),
        ({"metrics": _metric("traceId", "sum")}, 'Aggregation "sum" is not valid'),
        ({"dimensions": _fields("costType", "usageType")}, "Only one pairExpand dimension"),
        ({"dimensions": _fields("sessionId")}, "High cardinality dimension"),
        ({"orderBy": [{"field": "sum_latency", "direction": "asc"}]}, "Invalid orderBy field: sum_latency"),
        (
            {"filters": [{"type": "string", "column": "tags", "operator": "=", "value": "x"}]},
            "Invalid filter for field 'tags'",
        ),
        (
            {"filters": [{"type": "string", "column": "name", "operator": "=", "value": "\ud800"}]},
            "Invalid request data",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_metrics_refusals(ask: Ask, parts: dict[str, Any], message: str) -> None:
    """What cannot be computed is a 400 that says why."""
    answer = ask(**parts)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '{"view": 1e999}', "[" * 9999])
def test_metrics_odd_queries_are_refused(client: httpx.Client, text: str) -> None:
    """A query that is no object of the right shape is a 400, never a server error."""
    assert client.get("/api/public/v2/metrics", params={"query": text}).status_code == 400


def test_metrics_sums_survive_huge_counts(client: httpx.Client, send: Callable[..., httpx.Response]) -> None:
    """A sum beyond 64 bits is answered as a number."""
    huge = json.dumps({"input": 2**53})
    spans = [
        make_span(number, trace=77, langfuse__observation__usage_details=huge, langfuse__release="huge")
        for number in range(1100)
    ]
    assert send(*spans).status_code == 200
    query = {
        "view": "observations",
        "metrics": _metric("inputTokens", "sum"),
        "filters": [{"type": "string", "column": "release", "operator": "=", "value": "huge"}],
        "fromTimestamp": _FROM,
        "toTimestamp": _TO,
    }
    answer = client.get("/api/public/v2/metrics", params={"query": json.dumps(query)})
    assert _rows(answer) == [{"sum_inputTokens": float(1100 * 2**53)}]


def test_metrics_scores_by_trace_name(client: httpx.Client, send: Callable[..., httpx.Response]) -> None:
    """Scores find the name of their trace; scores of unknown traces drop out of such a query."""
    send(make_span(1, trace=88, name="scored-trace"))
    for trace_id, value in ((f"{88:032x}", 0.5), (f"{88:032x}", 1), ("unknown", 7)):
        score = {"name": "by-trace", "value": value, "traceId": trace_id, "timestamp": "2026-11-20T09:30:00Z"}
        assert client.post("/api/public/scores", json=[score]).status_code == 202
    query = {
        "view": "scores-numeric",
        "metrics": _metric("value", "avg", "count"),
        "dimensions": _fields("traceName"),
        "filters": [{"type": "string", "column": "name", "operator": "=", "value": "by-trace"}],
        "fromTimestamp": _FROM,
        "toTimestamp": _TO,
    }
    answer = client.get("/api/public/v2/metrics", params={"query": json.dumps(query)})
    assert _rows(answer) == [{"traceName": "scored-trace", "avg_value": 0.75, "count_value": 2}]


def test_metrics_reach_the_official_client(ask: Ask, store: StoreAddress) -> None:
    """The SDK's own method reads metrics from the store."""
    program = """
import json, sys
from langfuse import Langfuse
base_url, public_key, secret_key, query = sys.argv[1:]
client = Langfuse(base_url=base_url, public_key=public_key, secret_key=secret_key)
print(json.dumps(client.api.metrics.metrics(query=query).data))
"""
    session = {"type": "string", "column": "sessionId", "operator": "=", "value": "metrics"}
    query = {
        "view": "observations",
        "metrics": [_COUNT],
        "filters": [session],
        "fromTimestamp": _FROM,
        "toTimestamp": _TO,
    }
    arguments = [store.base_url, store.public_key, store.secret_key, json.dumps(query)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"count_count": 5}]


@pytest.mark.parametrize(
    ("hours", "name"), [(1, "minute"), (24, "hour"), (72, "day"), (24 * 60, "week"), (24 * 365, "month")]
)
def test_metrics_auto_granularity(hours: int, name: str) -> None:
    """The longer the range, the wider its buckets."""
    start_ms = START_NS // 1_000_000
    end_ms = start_ms + hours * 3_600_000
    assert get_granularity("auto", start_ms, end_ms) is get_granularity(name, start_ms, end_ms)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("week", ["2026-12-21", "2026-12-28"]),
        ("month", ["2026-12-01"]),
        ("day", [f"2026-12-{n}" for n in range(27, 32)]),
    ],
)
def test_metrics_buckets_cross_a_year(name: str, labels: list[str]) -> None:
    """Buckets begin with the one of the start and end before the one of the end."""
    from_ms, to_ms = iso_to_ms("2026-12-27T23:00:00Z"), iso_to_ms("2027-01-01T05:00:00Z")
    to_ms += 7 * 86_400_000 if name == "week" else 0
    granularity = get_granularity(name, from_ms, to_ms)
    assert [granularity.label_of(bucket) for bucket in granularity.buckets(from_ms, to_ms)] == labels


def test_metrics_quantile_and_histogram() -> None:
    """Percentiles interpolate; a histogram counts every value once between its bounds."""
    assert [quantile([1, 2, 3, 4], share) for share in (0, 0.5, 1)] == [1, 2.5, 4]
    assert quantile([], 0.5) is None
    bins = histogram([0, 1, 2, 10], 5)
    assert (bins[0][0], bins[-1][1], sum(height for *_, height in bins)) == (0, 10, 4)
    assert histogram([3, 3], 5) == [(3, 3, 2)]


def test_metrics_tools_of_several_providers() -> None:
    """Calls are found in the messages of the common providers, definitions in the input."""
    assert (
        called_tools('{"choices": [{"message": {"tool_calls": [{"function": {"name": "a"}}]}}]}') == '["a"]'
    )
    assert called_tools('[{"content": [{"type": "tool_use", "name": "b"}, {"type": "text"}]}]') == '["b"]'
    assert called_tools('"a tool"') == called_tools(None) == called_tools("tool {") == "[]"
    given = {"tools": [{"function": {"name": "a"}}, {"name": "b"}, {"name": "b"}], "messages": []}
    assert json.loads(defined_tools(json.dumps(given))) == ["a", "b"]

"""Observations: written as OTLP, read as rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from exports import export_of, make_span

from research_kit.store import StoreAddress

Send = Callable[..., httpx.Response]
_EXPORT = "/api/public/otel/v1/traces"
_LIST = "/api/public/v2/observations"


def _rows(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(_LIST, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def test_spans_are_readable_when_the_request_is_answered(client: httpx.Client, send: Send) -> None:
    """An accepted export needs no waiting."""
    send(make_span(1, trace=10, session__id="now"))
    assert [row["name"] for row in _rows(client, sessionId="now")] == ["span-1"]


def test_odd_text_survives(client: httpx.Client, send: Send) -> None:
    """Control characters, NUL, emoji and what looks like HTML come back as they were sent."""
    odd = 'a\x00b\x01\x1f\x7f\u2028"\\</script>\U0001f600'
    send(make_span(1, trace=11, session__id="odd", langfuse__observation__input=odd, name=odd))
    (row,) = _rows(client, sessionId="odd", fields="basic,io")
    assert (row["input"], row["name"]) == (odd, odd)


def test_half_surrogates_do_not_break_a_page(client: httpx.Client) -> None:
    """Text that JSON can carry and UTF-8 cannot is stored with replacements."""
    span = make_span(1, trace=12, session__id="half", langfuse__observation__metadata='{"k": "\\ud800"}')
    body = json.dumps(export_of(span)).replace("span-1", "x\\ud800y").encode()
    assert client.post(_EXPORT, content=body, headers={"content-type": "application/json"}).status_code == 200
    (row,) = _rows(client, sessionId="half", fields="basic,metadata")
    assert (row["name"], row["metadata"]["k"]) == ("x?y", "?")


_ODD_EXPORTS: dict[str, Any] = {
    "list": [],
    "number": 1,
    "null": None,
    "spans are no list": {"resourceSpans": 1},
    "nested nulls": {
        "resourceSpans": [None, {"resource": None, "scopeSpans": [None, {"scope": 1, "spans": [1]}]}]
    },
    "values are no values": export_of(
        make_span(1, trace=13) | {"attributes": [{"key": 1, "value": 2}, {}, 3]}
    ),
    "array of numbers": export_of(
        make_span(2, trace=13) | {"attributes": [{"key": "a", "value": {"arrayValue": {"values": 3}}}]}
    ),
    "times are no times": export_of(
        make_span(3, trace=13) | {"startTimeUnixNano": "x", "endTimeUnixNano": -5}
    ),
    "huge times": export_of(
        make_span(4, trace=13) | {"startTimeUnixNano": 10**30, "endTimeUnixNano": "9" * 40}
    ),
    "infinite": export_of(
        make_span(5, trace=13) | {"attributes": [{"key": "a", "value": {"doubleValue": 1e999}}]}
    ),
    "huge usage": export_of(make_span(6, trace=13, langfuse__observation__usage_details='{"input": 1e300}')),
    "deep": export_of(make_span(7, trace=13, langfuse__observation__metadata="[" * 100_000)),
    "status is text": export_of(
        make_span(8, trace=13) | {"status": {"code": "STATUS_CODE_ERROR", "message": 3}}
    ),
    "events are odd": export_of(
        make_span(9, trace=13) | {"events": [1, {"name": None, "attributes": [None]}]}
    ),
}


@pytest.mark.parametrize("export", _ODD_EXPORTS.values(), ids=_ODD_EXPORTS)
def test_odd_exports_are_taken_or_refused(client: httpx.Client, export: Any) -> None:
    """Whatever JSON comes, the answer is 200 or 400, and the store stays readable."""
    content = json.dumps(export).encode()
    answer = client.post(_EXPORT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    groups = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
    for row in _rows(client, traceId=f"{13:032x}", fields=groups):
        assert row["projectId"]


def test_random_bytes_are_refused(client: httpx.Client) -> None:
    """Damaged protobuf never becomes a server error."""
    chance = random.Random(7)
    for _ in range(50):
        body = chance.randbytes(chance.randrange(1, 200))
        answer = client.post(_EXPORT, content=body, headers={"content-type": "application/x-protobuf"})
        assert answer.status_code in (200, 400), answer.text


def test_refused_export_stores_nothing(client: httpx.Client, send: Send) -> None:
    """One bad span refuses the whole request."""
    good, bad = make_span(1, trace=14, session__id="all-or-nothing"), make_span(2, trace=14)
    del bad["spanId"]
    assert send(good, bad).status_code == 400
    assert _rows(client, sessionId="all-or-nothing") == []


def test_pages_cover_every_row_once(client: httpx.Client, send: Send) -> None:
    """Following the cursor gives each row once, newest first, also where start times are equal."""
    spans = [make_span(number, trace=100 + number % 7, session__id="paged") for number in range(1, 60)]
    for span in spans:
        span["startTimeUnixNano"] = str(int(span["startTimeUnixNano"]) // 10**10 * 10**10)
    send(*spans)
    seen: list[tuple[str, str]] = []
    query: dict[str, Any] = {"sessionId": "paged", "limit": 7}
    while True:
        answer = client.get(_LIST, params=query).json()
        seen += [(row["startTime"], row["id"]) for row in answer["data"]]
        if not (cursor := answer["meta"].get("cursor")):
            break
        query["cursor"] = cursor
    assert [start for start, _ in seen] == sorted((start for start, _ in seen), reverse=True)
    assert sorted(identity for _, identity in seen) == sorted(span["spanId"] for span in spans)


def test_reads_go_on_while_a_batch_is_written(client: httpx.Client, send: Send, store: StoreAddress) -> None:
    """Many writers and readers at the same time see whole batches and no error."""
    batches = [[make_span(n, trace=1000 + b, session__id="busy") for n in range(1, 41)] for b in range(20)]
    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(send, *batch) for batch in batches]
        reads = [pool.submit(_rows, client, sessionId="busy", limit=1000, fields="core") for _ in range(30)]
        assert {write.result().status_code for write in writes} == {200}
        assert {len(read.result()) % 40 for read in reads} == {0}
    assert len(_rows(client, sessionId="busy", limit=1000, fields="core")) == 800


@pytest.mark.parametrize("value", ["'; DROP TABLE observations; --", "%", "_", '"', "\\", "\x00"])
def test_parameters_are_values_not_sql(client: httpx.Client, send: Send, value: str) -> None:
    """What stands in a parameter or a filter is compared, never executed or taken as a pattern."""
    send(make_span(1, trace=15, session__id="quoted", name="plain"))
    assert _rows(client, sessionId="quoted", name=value) == []
    for operator in ("=", "contains", "starts with", "ends with"):
        condition = {"type": "string", "column": "name", "operator": operator, "value": value}
        assert _rows(client, sessionId="quoted", filter=json.dumps([condition])) == []
    assert len(_rows(client, sessionId="quoted")) == 1


_BAD_FILTERS = [
    '[{"type":"string","column":"name","operator":"=","value":"\\ud800"}]',
    "{",
    "1",
    "[1]",
    '[{"type":"string"}]',
    '[{"type":[],"column":"name"}]',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", _BAD_FILTERS)
def test_bad_filter_is_refused(client: httpx.Client, text: str) -> None:
    """A filter that is not understood is refused, never ignored."""
    assert client.post(_LIST).status_code == 405
    assert client.get(_LIST, params={"filter": text[:5000]}).status_code == 400

"""Numbers that nobody means, wherever a number can be: the store answers, and everything stays readable."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.traces import ALL_SESSIONS, TraceReader, observations_df, scores_df, sessions_df

EXPORT = "/api/public/otel/v1/traces"
START_NS = 1_795_165_200_000_000_000
# As texts of JSON: some are no Python numbers.
NUMBERS = {
    "400 digits": "1" + "0" * 400,
    "minus 400 digits": "-1" + "0" * 400,
    "4300 digits": "9" * 4300,
    "5000 digits": "9" * 5000,
    "beyond 64 bits": str(2**64),
    "64 bits": str(2**63),
    "53 bits": str(2**53),
    "negative": "-7",
    "fraction": "0.5",
    "infinite": "1e999",
    "minus infinite": "-1e999",
    "largest": "1.7976931348623157e308",
    "constant": "NaN",
    "constant infinity": "Infinity",
    "true": "true",
    "null": "null",
    "object": '{"a": {"b": 1}}',
    "list": "[1, [2]]",
    "text": '"many"',
    "text of 400 digits": '"' + "7" * 400 + '"',
    "text of 5000 digits": '"' + "7" * 5000 + '"',
    "text infinite": '"1e999"',
    "half a character": '"\\ud800"',
    "deep": "[" * 900 + "]" * 900,
    "very deep": "[" * 100_000,
}
# Attributes that hold a number as JSON text.
TEXT_PLACES = {
    "usage": ("langfuse.observation.usage_details", '{{"input": {0}, "output": {0}, "total": {0}}}'),
    "usage keys": ("langfuse.observation.usage_details", '{{"input": 1, "input_cached": {0}, "{0}": {0}}}'),
    "openai usage": (
        "langfuse.observation.usage_details",
        '{{"prompt_tokens": {0}, "completion_tokens": 2, "prompt_tokens_details": {{"cached_tokens": {0}}}}}',
    ),
    "usage itself": ("langfuse.observation.usage_details", "{0}"),
    "cost": ("langfuse.observation.cost_details", '{{"input": {0}, "output": {0}}}'),
    "total cost": ("langfuse.observation.cost_details", '{{"total": {0}}}'),
    "parameters": ("langfuse.observation.model.parameters", '{{"temperature": {0}, "max_tokens": {0}}}'),
    "metadata": ("langfuse.observation.metadata", '{{"count": {0}, "inner": {{"count": [{0}]}}}}'),
    "metadata key": ("langfuse.observation.metadata.count", "{0}"),
    "prompt version": ("langfuse.observation.prompt.version", "{0}"),
    "completion start": ("langfuse.observation.completion_start_time", "{0}"),
    "level": ("langfuse.observation.level", "{0}"),
    "tags": ("langfuse.trace.tags", "[{0}]"),
    "version": ("langfuse.version", "{0}"),
    "messages": ("gen_ai.input.messages", '[{{"role": "user", "content": {0}}}]'),
    "events": ("events", '[{{"event.name": {0}}}]'),
    "input": ("langfuse.observation.input", "{0}"),
    "session": ("session.id", "{0}"),
}
# Attributes whose value is a number of the protocol.
NUMBER_PLACES = (
    *(
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cost",
        "gen_ai.usage.details.x",
    ),
    *("llm.token_count.prompt", "llm.token_count.total", "llm.cost.total", "gen_ai.request.temperature"),
    *("langfuse.observation.prompt.version", "langfuse.observation.metadata.n", "any.number", "model"),
    *("langfuse.observation.completion_start_time", "session.id", "langfuse.trace.tags"),
)
READS = (
    "/api/public/v2/observations?limit=1000&fields=core,basic,time,io,metadata,model,usage,prompt,metrics,"
    "trace_context",
    "/api/public/v3/scores?limit=100&fields=details,subject,annotation",
)
_SPAN = """{{"resourceSpans": [{{"scopeSpans": [{{"scope": {{"name": "langfuse-sdk"}}, "spans": [{{
    "traceId": "{trace:032x}", "spanId": "{span:016x}", "name": "n", "startTimeUnixNano": {start},
    "endTimeUnixNano": {end}, "status": {{"code": {code}}}, "attributes": [
        {{"key": "langfuse.observation.type", "value": {{"stringValue": "generation"}}}},
        {{"key": {key}, "value": {value}}}]}}]}}]}}]}}"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data_dir = tmp_path_factory.mktemp("numbers")
    yield ensure_running(data_dir, idle_timeout_s=300)
    stop_store(data_dir)


@pytest.fixture
def client(store: StoreAddress) -> Iterator[httpx.Client]:
    keys = (store.public_key, store.secret_key)
    with httpx.Client(base_url=store.base_url, auth=keys, timeout=60) as made:
        yield made


def export(key: str = "k", value: str = '{"stringValue": "v"}', **changes: Any) -> bytes:
    parts = {"trace": 1, "span": 1, "start": START_NS, "end": START_NS + 10**9, "code": 0, **changes}
    return _SPAN.format(key=json.dumps(key), value=value, **parts).encode()


def post(client: httpx.Client, path: str, content: bytes) -> None:
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 202, 207, 400), (answer.status_code, answer.text[:300])


def assert_readable(client: httpx.Client) -> None:
    for path in READS:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text[:300]
        json.loads(answer.content)
    for measure in ("inputTokens", "totalTokens", "totalCost", "latency"):
        metrics = [
            {"measure": measure, "aggregation": how} for how in ("sum", "avg", "max", "p95", "histogram")
        ]
        window = {"fromTimestamp": "2000-01-01T00:00:00Z", "toTimestamp": "2300-01-01T00:00:00Z"}
        query = json.dumps({"view": "observations", "metrics": metrics, **window})
        answer = client.get("/api/public/v2/metrics", params={"query": query})
        assert answer.status_code == 200, answer.text[:300]


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_any_number_is_taken_or_refused(
    number: str, client: httpx.Client, store: StoreAddress, recwarn: pytest.WarningsRecorder
) -> None:
    """In every place, as text and as a number of the protocol; afterwards everything is read, frames too."""
    for place, (key, template) in enumerate(TEXT_PLACES.values()):
        text = json.dumps(template.format(number))
        post(client, EXPORT, export(key, f'{{"stringValue": {text}}}', span=100 + place))
    for place, key in enumerate(NUMBER_PLACES):
        kinds = (
            "intValue",
            "doubleValue",
            "boolValue",
            "stringValue",
            "arrayValue",
            "kvlistValue",
            "bytesValue",
        )
        for form, kind in enumerate(kinds):
            post(client, EXPORT, export(key, f'{{"{kind}": {number}}}', span=1000 + 10 * place + form))
        halves = f'{{"intValue": {{"high": {number}, "low": {number}}}}}'
        post(client, EXPORT, export(key, halves, span=5000 + place))
    for field in ("start", "end", "code"):
        post(client, EXPORT, export(**{field: number}))
    target = '"traceId": "t", "name": "n"'
    for score in (
        f'{{{target}, "value": {number}}}',
        f'{{{target}, "value": 1, "metadata": {{"n": {number}}}, "configId": {number}}}',
        f'{{{target}, "value": 1, "dataType": "BOOLEAN", "timestamp": {number}}}',
        f'{{{target}, "value": 1, "id": {number}, "comment": {number}, "metadata": {number}}}',
        f'[{{{target}, "value": {number}}}]',
        number,
    ):
        post(client, "/api/public/scores", score.encode())
        event = f'"type": "score-create", "timestamp": "2026-11-20T09:00:00Z", "body": {score}'
        post(client, "/api/public/ingestion", f'{{"batch": [{{"id": {number}, {event}}}]}}'.encode())
    post(client, "/api/public/ingestion", f'{{"batch": {number}}}'.encode())
    assert_readable(client)
    with TraceReader(store.base_url, store.public_key, store.secret_key) as reader:
        frame = observations_df(ALL_SESSIONS, reader=reader)
        sessions_df(reader=reader)
        scores_df(ALL_SESSIONS, reader=reader)
    assert len(frame) > 20
    assert not any(math.isinf(cost) for cost in frame["cost_usd"])


def test_double_of_the_protocol_is_kept_as_words(client: httpx.Client) -> None:
    """Infinities and what is no number arrive in protobuf as well; the observation stays."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes([7] * 16), bytes([7] * 8), "protobuf"
    span.start_time_unix_nano, span.end_time_unix_nano = 2**64 - 1, 2**64 - 1
    for key in NUMBER_PLACES:
        for number in (math.inf, -math.inf, math.nan, 1.7e308, -0.0):
            span.attributes.add(key=key).value.double_value = number
        span.attributes.add(key=f"{key}.int").value.int_value = -(2**63)
    answer = client.post(
        EXPORT, content=request.SerializeToString(), headers={"content-type": "application/x-protobuf"}
    )
    assert answer.status_code == 200, answer.text
    assert_readable(client)


def test_sums_of_large_numbers_are_read(client: httpx.Client) -> None:
    """A thousand of the largest counts and costs are summed up without a failure, on the pages too."""
    usage = json.dumps(json.dumps({"input": 2**53, **{f"input_{n}": 2**53 for n in range(50)}}))
    cost = json.dumps(json.dumps({"total": 9e14, "input": 9e14}))
    for span in range(1100, 1140):
        for key, text in (("usage", usage), ("cost", cost)):
            value = f'{{"stringValue": {text}}}'
            post(client, EXPORT, export(f"langfuse.observation.{key}_details", value, span=span, trace=2))
    assert_readable(client)


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_any_number_in_a_question_is_answered(number: str, client: httpx.Client) -> None:
    """Limits, cursors, filters and metrics with such numbers are answered or refused."""
    window = '"fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2027-01-01T00:00:00Z"'
    metric = '{"measure": "totalCost", "aggregation": "histogram"}'
    queries = [
        f'{{"view": "observations", "metrics": [{metric}], {window}, "config": {{"bins": {number}}}}}',
        f'{{"view": "observations", "metrics": [{metric}], {window}, "config": {{"row_limit": {number}}}}}',
        f'{{"view": {number}, "metrics": {number}, "dimensions": {number}, {window}}}',
        f'{{"view": "scores-numeric", "metrics": [{{"measure": "value", "aggregation": "sum"}}], {window},'
        f' "filters": [{{"column": "value", "operator": ">", "type": "number", "value": {number}}}]}}',
    ]
    filters = [
        f'[{{"column": "{column}", "operator": "{operator}", "type": "number", "value": {number}}}]'
        for column in ("latency", "totalCost", "inputTokens", "promptVersion", "level")
        for operator in (">", "=")
    ]
    asked = [("/api/public/v2/metrics", {"query": query}) for query in queries]
    asked += [("/api/public/v2/observations", {"filter": text}) for text in filters if len(text) < 50_000]
    names = ("limit", "cursor", "fromStartTime", "isRootObservation", "expandMetadata")
    asked += [("/api/public/v2/observations", {name: number[:6000]}) for name in names]
    asked += [("/api/public/v3/scores", {name: number[:6000]}) for name in ("limit", "cursor", "value")]
    asked += [("/api/public/models", {name: number[:6000]}) for name in ("limit", "page")]
    for path, params in asked:
        if sum(map(len, params.values())) < 50_000:  # longer addresses are no addresses
            answer = client.get(path, params=params)
            assert answer.status_code in (200, 400), (path, params, answer.status_code, answer.text[:300])

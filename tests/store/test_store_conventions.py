"""How the attributes of each client become the fields of an observation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from research_kit.store.otlp_json import decode_json
from research_kit.store.rows import make_row
from research_kit.store.spans import ExportError

NOW_MS = 1_795_165_300_000
MESSAGES = '[{"role":"user","content":"hi"}]'


def typed(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [typed(part) for part in value]}}
        case dict():
            return value
        case _:
            return {"stringValue": value}


def attributes_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": typed(value)} for key, value in values.items()]


def row_of(
    attributes: Mapping[str, Any],
    *,
    scope: str = "any",
    resource: Mapping[str, Any] | None = None,
    events: list[tuple[str, Mapping[str, Any]]] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return the row of one span; columns that hold JSON are parsed."""
    span = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "name": "work",
        "startTimeUnixNano": "1795165200000000000",
        "attributes": attributes_of(attributes),
        "events": [{"name": name, "attributes": attributes_of(given)} for name, given in events or []],
        **fields,
    }
    group = {
        "resource": {"attributes": attributes_of(resource or {})},
        "scopeSpans": [{"scope": {"name": scope}, "spans": [span]}],
    }
    [decoded] = decode_json(json.dumps({"resourceSpans": [group]}).encode())
    row = make_row(decoded, now_ms=NOW_MS)
    values = {name: getattr(row, name) for name in row.__slots__}
    for name in ("usage_details", "cost_details", "model_parameters", "tags", "metadata"):
        values[name] = json.loads(values[name])
    return values


USAGE = "gen_ai.usage."
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tool call without operation": (
        {
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.arguments": '{"q":1}',
            "gen_ai.tool.call.result": "ok",
        },
        {"type": "TOOL", "name": "search", "input": '{"q":1}', "output": "ok"},
    ),
    "kind that is unknown lets the operation speak": (
        {"openinference.span.kind": "RERANKER", "gen_ai.operation.name": "embeddings"},
        {"type": "EMBEDDING"},
    ),
    "reasoning and cache under newer names": (
        {
            f"{USAGE}input_tokens": 100,
            f"{USAGE}output_tokens": "30",
            f"{USAGE}cache_read.input_tokens": 40,
            f"{USAGE}cache_creation.input_tokens": 5,
            f"{USAGE}reasoning_tokens": 10,
            f"{USAGE}details.odd": 2,
        },
        {
            "usage_details": {
                "odd": 2,
                "input": 55,
                "output": 20,
                "input_cached_tokens": 40,
                "input_cache_creation": 5,
                "output_reasoning_tokens": 10,
                "total": 132,
            }
        },
    ),
    "openinference counts": (
        {
            "llm.token_count.prompt": 9,
            "llm.token_count.completion": 4,
            "llm.token_count.completion_details.audio": 1,
        },
        {"usage_details": {"input": 9, "output": 3, "output_audio_tokens": 1, "total": 13}},
    ),
    "usage that is no JSON leaves the conventions to speak": (
        {"langfuse.observation.usage_details": "junk", f"{USAGE}input_tokens": 3},
        {"usage_details": {"input": 3, "total": 3}},
    ),
    "summary of an agent": (
        {
            "gen_ai.operation.name": "invoke_agent",
            f"{USAGE}input_tokens": 3,
            "gen_ai.request.temperature": 0.5,
        },
        {"type": "AGENT", "usage_details": {}, "model": "", "model_parameters": {"temperature": 0.5}},
    ),
    "exact cost": (
        {"gen_ai.request.model": "gpt-4o-mini", f"{USAGE}input_tokens": 3},
        {"input_cost": 4.5e-7, "total_cost": 4.5e-7},
    ),
    "parameters that are neither text nor number": (
        {"llm.invocation_parameters": '{"a":true,"b":[1],"c":0.5,"d":null}'},
        {"model_parameters": {"a": "true", "b": "[1]", "c": 0.5, "d": "null"}},
    ),
    "flattened parameters": (
        {"llm.invocation_parameters.top_p": 0.9, "llm.model_name": "m"},
        {"model_parameters": {"top_p": 0.9}, "type": "GENERATION"},
    ),
    "user, session and tags in metadata": (
        {
            "langfuse.observation.metadata.langfuse_user_id": "ann",
            "langfuse.trace.metadata.langfuse_session_id": "s",
            "langfuse.observation.metadata.langfuse_tags": ["a", 1],
        },
        {"user_id": "ann", "session_id": "s", "tags": ["a", "1"]},
    ),
    "environment of the span": ({"deployment.environment": "lab"}, {"environment": "lab"}),
    "tags in one text": ({"langfuse.trace.tags": "a, b,c"}, {"tags": ["a", "b", "c"]}),
    "prompt under its short name": (
        {"gen_ai.operation.name": "chat", "langfuse.prompt.name": "p", "langfuse.prompt.version": "7"},
        {"prompt_name": "p", "prompt_version": 7},
    ),
    "metadata: no content, no metadata again": (
        {
            "input": "in",
            "output.value": "out",
            "langfuse.trace.input": "t",
            "langfuse.trace.metadata.k": "v",
            "x": 1,
        },
        {"output": "out", "input": None, "metadata": {"attributes.x": 1, "k": "v", "scope.name": "any"}},
    ),
    "metadata in place of a group": (
        {"langfuse.observation.metadata": '{"scope": "mine", "deep": {"a": {"b": 1}}}'},
        {"metadata": {"scope": "mine", "deep.a.b": 1}},
    ),
    "values of all types": (
        {
            "kv": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}},
            "nan": {"doubleValue": "NaN"},
            "halves": {"intValue": {"low": 5, "high": 1}},
            "bad": {"intValue": "x"},
            "list": {"arrayValue": {"values": [{}, {"boolValue": True}]}},
            "nothing": {},
        },
        {
            "metadata": {
                "attributes.kv": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}},
                "attributes.nan": "NaN",
                "attributes.halves": 2**32 + 5,
                "attributes.bad": {"intValue": "x"},
                "attributes.list": [None, True],
                "scope.name": "any",
            }
        },
    ),
    "flattened messages": (
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.2.message.contents.0.text": "t",
            "llm.input_messages.junk": "x",
            "llm.input_messages.0.message.role.deeper": "x",
        },
        {
            "input": '[{"message":{"role":"user"}},null,{"message":{"contents":[{"text":"t"}]}}]',
            "output": "{}",
        },
    ),
    "instructions in parts": (
        {
            "gen_ai.input.messages": MESSAGES,
            "gen_ai.system_instructions": '[{"type":"text","content":"a"},{"type":"text","content":"b"}]',
        },
        {"input": '[{"role":"system","content":"a\\nb"},{"role":"user","content":"hi"}]'},
    ),
    "instructions as messages": (
        {
            "gen_ai.input.messages": MESSAGES,
            "gen_ai.system_instructions": '[{"parts":[{"type":"text","content":"a"}]}]',
        },
        {
            "input": '[{"role":"system","parts":[{"type":"text","content":"a"}]},' + MESSAGES[1:],
        },
    ),
    "instructions as plain text": (
        {"gen_ai.input.messages": MESSAGES, "gen_ai.system_instructions": "be brief"},
        {"input": '[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]'},
    ),
    "Logfire": (
        {
            "logfire.msg": "asked",
            "events": '[{"event.name":"gen_ai.user.message"},{"event.name":"gen_ai.choice"}]',
        },
        {
            "name": "asked",
            "input": '[{"event.name":"gen_ai.user.message"}]',
            "output": '{"event.name":"gen_ai.choice"}',
        },
    ),
    "ADK tool": (
        {
            "gcp.vertex.agent.llm_request": "{}",
            "gcp.vertex.agent.tool_call_args": '{"a":1}',
            "gcp.vertex.agent.tool_response": "r",
        },
        {"input": '{"a":1}', "output": "r"},
    ),
    "MLflow": ({"mlflow.spanInputs": "i", "mlflow.spanOutputs": "o"}, {"input": "i", "output": "o"}),
    "LiveKit": ({"lk.user_transcript": "i", "lk.response.text": "o"}, {"input": "i", "output": "o"}),
}


@pytest.mark.parametrize(("attributes", "expected"), CASES.values(), ids=CASES.keys())
def test_attributes_become_fields(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every convention is read as the recorded server reads it."""
    row = row_of(attributes)
    assert {name: row[name] for name in expected} == expected


def test_scope_decides_where_names_are_its_own() -> None:
    """Names that only one client uses count in its scope alone."""
    vercel = {
        "ai.operationId": "ai.streamText.doStream",
        "ai.telemetry.functionId": "f",
        "ai.model.id": "gpt-4o",
        "ai.prompt": "p",
        "ai.response.text": "t",
        "ai.telemetry.metadata.userId": "ann",
        "ai.telemetry.metadata.team": "x",
    }
    row = row_of(vercel, scope="ai")
    assert (row["type"], row["name"]) == ("GENERATION", "f:ai.streamText.doStream")
    assert (row["input"], row["output"], row["user_id"]) == ("p", "t", "ann")
    assert row["metadata"]["team"] == "x"
    assert row_of(vercel)["input"] is None
    agent = {"pydantic_ai.all_messages": MESSAGES, "final_result": "r"}
    assert row_of(agent, scope="pydantic-ai")["output"] == "r"
    assert row_of(agent)["output"] is None
    early = {"langfuse.observation.type": "span", "langfuse.observation.model.name": "m"}
    python = {"telemetry.sdk.language": "python"}
    assert row_of(early, scope="langfuse-sdk", resource=python)["type"] == "GENERATION"
    assert row_of(early, scope="langfuse-sdk")["type"] == "SPAN"


def test_events_count_before_attributes() -> None:
    """Messages in events win over attributes, and those of the details event over single ones."""
    attributes = {"input.value": "attribute"}
    single: list[tuple[str, Mapping[str, Any]]] = [
        ("gen_ai.user.message", {"content": "hi"}),
        ("gen_ai.choice", {"index": 0, "text": "yo"}),
    ]
    row = row_of(attributes, events=single)
    assert (row["input"], row["output"]) == (MESSAGES, '{"index":0,"text":"yo"}')
    details = ("gen_ai.client.inference.operation.details", {"gen_ai.input.messages": '["d"]'})
    assert row_of(attributes, events=[*single, details])["input"] == '["d"]'
    old = ("gen_ai.content.prompt", {"gen_ai.prompt": "old"})
    assert row_of({}, events=[old])["input"] == "old"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"startTimeUnixNano": "junk", "endTimeUnixNano": "5000000"}, (5, 5)),
        ({"startTimeUnixNano": "5999999", "endTimeUnixNano": "0"}, (5, 5)),
        ({"startTimeUnixNano": None}, (NOW_MS, NOW_MS)),
        ({"startTimeUnixNano": 9000000, "endTimeUnixNano": {"low": 3000000, "high": 0}}, (9, 3)),
    ],
)
def test_one_time_stands_in_for_the_other(times: dict[str, Any], expected: tuple[int, int]) -> None:
    """A span with one time has no duration; one with none happened on arrival."""
    row = row_of({}, **times)
    assert (row["start_ms"], row["end_ms"]) == expected


@pytest.mark.parametrize(
    ("resource_spans", "problem"),
    [
        (
            [{"scopeSpans": {}}],
            "1 resource- or scope-level field(s) are present but not arrays (scopeSpans:not",
        ),
        ([{"resource": {"attributes": {}}}], "(resource.attributes:not_an_array)"),
        ([{"scopeSpans": [{"spans": [None]}]}], "1 of 1 span(s) cannot be processed (traceId:absent, spanId"),
        ([{"scopeSpans": [{"spans": [{"traceId": 5, "spanId": "a"}]}]}], "(traceId:not_an_id). traceId and"),
        (
            [
                {
                    "scopeSpans": [
                        {"scope": {"name": "s"}, "spans": [{"traceId": "a", "spanId": "b", "events": {}}]}
                    ]
                }
            ],
            "(events:not_an_array). scopeSpans, spans",
        ),
    ],
)
def test_export_that_cannot_be_stored_is_refused(resource_spans: list[Any], problem: str) -> None:
    """The whole export is refused, and the answer names what is wrong."""
    with pytest.raises(ExportError, match="Invalid OTLP trace export") as caught:
        decode_json(json.dumps({"resourceSpans": resource_spans}).encode())
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "body", ["5", '"x"', "[]", "{}", '{"resourceSpans": {}}', '{"resourceSpans": [null]}']
)
def test_json_without_spans_is_an_empty_export(body: str) -> None:
    """What holds no list of spans holds no spans."""
    assert decode_json(body.encode()) == []


def test_ids_come_as_text_or_as_bytes() -> None:
    """Lists of bytes, also as Node.js writes its buffers, are the same ids as hexadecimal text."""
    row = row_of({}, traceId=[1, 2, 255], spanId={"type": "Buffer", "data": [9, 8]})
    assert (row["trace_id"], row["span_id"]) == ("0102ff", "0908")

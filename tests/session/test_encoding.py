"""What of a span reaches disk and network."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from research_kit.masking import CurrentMask
from research_kit.session.encoding import as_died, encode_span


def span_with(attributes: dict[str, str]) -> ReadableSpan:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("work", attributes=attributes)
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def attributes_of(payload: bytes) -> dict[str, str]:
    [span] = ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_secrets_do_not_reach_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment, also those set while the kernel runs, are taken out of every attribute."""
    mask = CurrentMask()
    mask.add([r"\bID-\d+"])
    monkeypatch.setenv("MY_SERVICE_TOKEN", "hunter2-hunter2")
    span = span_with(
        {"langfuse.observation.input": "token hunter2-hunter2 of ID-1234, sk-ant-api03-abcdefgh12345678"}
    )
    text = attributes_of(encode_span(span, mask.masker()))["langfuse.observation.input"]
    assert text == "token [masked] of [masked], [masked]"


def test_span_is_masked_everywhere() -> None:
    """Name, status, attributes in lists and maps, and those of events and links lose their secrets."""
    secret = "sk-abcdefghijklmnopqrstuvwx"
    attributes = {"text": secret, "number": 3, "list": ("a", secret), "map": {"inner": [secret]}}
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    link = Link(SpanContext(trace_id=7, span_id=8, is_remote=True), {"why": secret})
    span = tracer.start_span(f"call {secret}", attributes=attributes, links=[link])
    span.add_event(f"met {secret}", {"exception.message": f"bad key {secret}"})
    span.set_status(StatusCode.ERROR, f"refused {secret}")
    span.end()
    assert isinstance(span, ReadableSpan)
    payload = encode_span(span, CurrentMask().masker())
    [encoded] = ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans
    assert secret.encode() not in payload
    assert (encoded.name, encoded.status.message) == ("call [masked]", "refused [masked]")
    assert encoded.attributes[1].value.int_value == 3
    assert [item.string_value for item in encoded.attributes[2].value.array_value.values] == ["a", "[masked]"]


def test_text_that_is_no_unicode_does_not_lose_its_span() -> None:
    """Half of a surrogate pair, as models and broken files produce, is replaced by a question mark."""
    span = span_with({"langfuse.observation.output": "a\ud800b", "session.id": "s"})
    attributes = attributes_of(encode_span(span, CurrentMask().masker()))
    assert attributes == {"langfuse.observation.output": "a?b", "session.id": "s"}


@pytest.mark.parametrize(
    ("number", "text"),
    [(2**63, str(2**63)), (-(10**400), "-1" + "0" * 400), (10**5000, "a number of 16610 bits")],
    ids=["64 bits", "400 digits", "5000 digits"],
)
def test_number_that_the_protocol_cannot_carry_does_not_lose_its_span(number: int, text: str) -> None:
    """It is written as text; a server of a language model can answer any number of tokens."""
    span = span_with({"tokens": number, "all": [1, number]})  # type: ignore[dict-item]
    assert attributes_of(encode_span(span, CurrentMask().masker()))["tokens"] == text


def test_captured_io_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without capturing, inputs and outputs of every library are dropped, and counts and names stay."""
    monkeypatch.setenv("RESEARCH_KIT_CAPTURE_IO", "false")
    kept = {"langfuse.observation.usage_details": "{}", "llm.token_count.prompt": "3", "session.id": "s"}
    dropped = {"langfuse.observation.input": "a", "output.value": "b", "gen_ai.prompt.0.content": "c"}
    assert attributes_of(encode_span(span_with({**kept, **dropped}), CurrentMask().masker())) == kept


def test_errors_quote_nothing_when_io_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without capturing, an error says of which kind it is, and not what it says of inputs and outputs."""
    monkeypatch.setenv("RESEARCH_KIT_CAPTURE_IO", "false")
    key = "langfuse.observation.status_message"
    told = {
        "AdapterParseError: the answer was 'Bob'": "AdapterParseError",
        "cancelled": "cancelled",
        "Bob": "",
    }
    for text, kept in told.items():
        assert attributes_of(encode_span(span_with({key: text}), CurrentMask().masker())) == {key: kept}
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("work")
    span.set_status(StatusCode.ERROR, "ValueError: Bob")
    span.end()
    assert isinstance(span, ReadableSpan)
    assert b"Bob" not in encode_span(span, CurrentMask().masker())


def test_names_of_attributes_and_resource_are_masked() -> None:
    """A secret as the name of an attribute, or in the resource, is no less a secret."""
    secret = "sk-abcdefghijklmnopqrstuvwx"
    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({"service.name": f"of {secret}"}))
    span = provider.get_tracer("test").start_span("work", attributes={secret: "x", "a\ud800": "y"})
    span.end()
    assert isinstance(span, ReadableSpan)
    payload = encode_span(span, CurrentMask().masker())
    assert secret.encode() not in payload
    assert attributes_of(payload) == {"[masked]": "x", "a?": "y"}


def test_open_span_of_a_dead_process_is_an_error() -> None:
    """A root that never ended is closed as an error at the time its process was last heard of."""
    payload = as_died(encode_span(span_with({"session.id": "s"}), CurrentMask().masker()), end_time_ns=2**61)
    [span] = ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans
    assert (span.end_time_unix_nano, span.status.message) == (2**61, "kernel died")
    assert attributes_of(payload)["langfuse.observation.level"] == "ERROR"


def test_encoder_agrees_with_the_exporters() -> None:
    """A span is encoded exactly as OpenTelemetry's own exporter encodes it."""
    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({"service.name": "x", "n": 3}))
    tracer = provider.get_tracer("scope", "1.0", attributes={"public_key": "pk"})
    with tracer.start_as_current_span("parent", kind=SpanKind.CLIENT) as parent:
        values = {"text": "ü", "flag": True, "whole": 3, "part": 0.5, "texts": ("a", "b"), "numbers": (1, 2)}
        link = Link(SpanContext(trace_id=7, span_id=8, is_remote=True), {"why": "linked"})
        with tracer.start_as_current_span("child", attributes=values, links=[link]) as child:
            child.add_event("happened", {"when": "now"})
            child.set_status(StatusCode.ERROR, "broken")
    for span in (parent, child):
        assert isinstance(span, ReadableSpan)
        assert ExportTraceServiceRequest.FromString(encode_span(span, str)) == encode_spans([span])

"""The read path against the real store process: spans go in as OTLP, frames come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from research_kit.errors import BackendError
from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.traces import (
    ALL_SESSIONS,
    TraceReader,
    cost_by,
    messages_df,
    observations_df,
    scores_df,
    sessions_df,
    traces_df,
    wait_for,
)

_BEGIN_NS = 1_795_000_000_000_000_000
_MS = 1_000_000

Attributes = dict[str, str | int]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(data_dir: Path) -> Iterator[StoreAddress]:
    yield ensure_running(data_dir)
    stop_store(data_dir)


@pytest.fixture
def reader(store: StoreAddress) -> Iterator[TraceReader]:
    with TraceReader(store.base_url, store.public_key, store.secret_key) as opened:
        yield opened


@pytest.fixture
def send(store: StoreAddress) -> Callable[[list[Span]], None]:
    def post(spans: list[Span]) -> None:
        request = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
        )
        answer = httpx.post(
            f"{store.base_url}/api/public/otel/v1/traces",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
            auth=(store.public_key, store.secret_key),
        )
        answer.raise_for_status()

    return post


def _span(session_id: str, number: int, attributes: Attributes, *, trace: int = 1, parent: int = 0) -> Span:
    """Return a span that begins ``number`` seconds after the base time and lasts 250 ms."""
    begin = _BEGIN_NS + number * 1000 * _MS
    all_attributes = {"session.id": session_id, "user.id": "ada", **attributes}
    return Span(
        trace_id=f"{session_id:>15.15}{trace:x}".encode(),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=str(attributes.get("name", "step")),
        start_time_unix_nano=begin,
        end_time_unix_nano=begin + 250 * _MS,
        attributes=[
            KeyValue(
                key=key,
                value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value),
            )
            for key, value in all_attributes.items()
            if key != "name"
        ],
    )


def _message(session_id: str, *, trace: int = 1, number: int = 1) -> list[Span]:
    """Return a chat message: a root, in it an agent that repeats the cost of its LM call, and a tool."""
    first = trace * 10
    cost = {"langfuse.observation.cost_details": json.dumps({"total": 0.125})}
    usage = {"langfuse.observation.usage_details": json.dumps({"input": 90, "output": 10, "total": 100})}
    lm = {
        "name": "LM",
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "some/model",
    }
    root: Attributes = {
        "name": "chat",
        "langfuse.trace.name": "chat",
        "langfuse.observation.type": "span",
        "langfuse.observation.input": json.dumps("How many rows?"),
        "langfuse.observation.output": json.dumps("344 rows."),
        "langfuse.trace.metadata.message_number": number,
    }
    return [
        _span(session_id, first, root, trace=trace),
        _span(
            session_id,
            first + 1,
            {"name": "agent", "langfuse.observation.type": "agent", **cost},
            trace=trace,
            parent=first,
        ),
        _span(session_id, first + 2, {**lm, **cost, **usage}, trace=trace, parent=first + 1),
        _span(
            session_id,
            first + 3,
            {"name": "describe", "langfuse.observation.type": "tool"},
            trace=trace,
            parent=first + 1,
        ),
    ]


def test_a_conversation_comes_back_as_it_was_sent(reader, send) -> None:
    """Two messages sent as OTLP come back as messages, traces, a session and costs, counted once."""
    send([*_message("talk"), *_message("talk", trace=2, number=2)])
    wait_for("talk", 8, reader=reader)
    messages = messages_df("talk", reader=reader)
    assert messages["message_number"].tolist() == [1, 2]
    assert messages["question"].tolist() == ["How many rows?"] * 2
    assert messages["answer"].tolist() == ["344 rows."] * 2
    assert messages["tools"].tolist() == ["describe"] * 2
    assert messages["latency_s"].tolist() == [0.25, 0.25]
    assert messages["cost_usd"].tolist() == [0.125, 0.125]
    assert traces_df("talk", reader=reader)["name"].tolist() == ["chat", "chat"]
    sessions = sessions_df(reader=reader).set_index("session_id")
    wanted = [
        "user_id",
        "trace_count",
        "message_count",
        "observation_count",
        "tool_call_count",
        "total_tokens",
        "cost_usd",
    ]
    assert sessions.loc["talk", wanted].tolist() == ["ada", 2, 2, 8, 2, 200, 0.25]
    observations = observations_df("talk", reader=reader)
    assert observations["depth"].tolist() == [0, 1, 2, 2] * 2
    assert cost_by(observations, "model")["cost_usd"].tolist() == [0.25]


def test_unknown_costs_are_missing(reader, send) -> None:
    """A model that no price table knows has no cost, and the sum says so."""
    lm = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "my/own-model"}
    usage = {"langfuse.observation.usage_details": json.dumps({"input": 9, "output": 1})}
    send([_span("unpriced", 1, {**lm, **usage})])
    observations = observations_df("unpriced", reader=reader)
    assert pd.isna(observations["cost_usd"][0])
    assert observations["total_tokens"].tolist() == [10]
    assert cost_by(observations)["unpriced_count"].tolist() == [1]


def test_many_observations_are_read_page_by_page(reader, send) -> None:
    """More rows than a page holds come back complete, each once, in order; a limit keeps the newest."""
    send([_span("many", number + 1, {"name": f"n{number}"}) for number in range(2345)])
    frame = observations_df("many", reader=reader)
    assert frame["name"].tolist() == [f"n{number}" for number in range(2345)]
    with pytest.warns(UserWarning, match="newest 1100 observations"):
        newest = observations_df("many", limit=1100, reader=reader)
    assert newest["name"].tolist() == frame["name"].tolist()[-1100:]


def test_times_bound_what_is_read(reader, send) -> None:
    """The start of the range is included, its end is not."""
    send([_span("timed", number, {"name": f"n{number}"}) for number in (1, 2, 3)])
    begins = observations_df("timed", reader=reader)["start_time"]
    frame = observations_df("timed", start_time=begins[0], end_time=begins[2], reader=reader)
    assert frame["name"].tolist() == ["n1", "n2"]


def test_wrong_keys_are_explained(store) -> None:
    """A wrong secret key names the keys to check."""
    with (
        TraceReader(store.base_url, store.public_key, "sk-lf-wrong") as reader,
        pytest.raises(BackendError, match=r"401.*LANGFUSE_SECRET_KEY") as caught,
    ):
        observations_df(ALL_SESSIONS, reader=reader)
    assert caught.value.status_code == 401


def test_without_a_reader_the_store_of_this_process_is_read(
    data_dir: Path, send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys and without a reader, frames come from the embedded store in the data folder."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    send([_span("default", 1, {"name": "found"})])
    assert observations_df("default")["name"].tolist() == ["found"]


def test_scores_come_back_with_their_subject(store, reader, send) -> None:
    """Scores given to a trace, an observation and the session are all scores of the session."""
    send([_span("judged", 1, {"name": "answer"})])
    (row,) = observations_df("judged", reader=reader).to_dict("records")
    subjects = [
        {"traceId": row["trace_id"]},
        {"traceId": row["trace_id"], "observationId": row["observation_id"]},
        {"sessionId": "judged"},
    ]
    for subject in subjects:
        httpx.post(
            f"{store.base_url}/api/public/scores",
            json={"name": "thumbs", "value": 1, "dataType": "BOOLEAN", "comment": "good", **subject},
            auth=(store.public_key, store.secret_key),
        ).raise_for_status()
    scores = scores_df("judged", reader=reader)
    assert sorted(scores["subject"]) == ["observation", "session", "trace"]
    assert scores["value"].tolist() == [1.0, 1.0, 1.0]
    assert scores["comment"].tolist() == ["good"] * 3

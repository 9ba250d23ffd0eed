"""Small bodies that would become large: the store refuses them and keeps its memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.store.answers import ApiError
from research_kit.store.spans import ExportError
from research_kit.store.wire_size import MAX_SPANS, check_size

EXPORT = "/api/public/otel/v1/traces"
# The store itself takes 80; 30 million empty spans took 5,900.
MAX_MEMORY_MB = 600
EMPTY = {"span": bytes([0x12, 0]), "attribute": bytes([0x4A, 0]), "event": bytes([0x5A, 0])}
IDS = b"\x0a\x10" + b"\x01" * 16 + b"\x12\x08" + b"\x01" * 8


def field(number: int, content: bytes) -> bytes:
    head, length = [number << 3 | 2], len(content)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*head, length]) + content


def export(spans: bytes) -> bytes:
    return field(1, field(2, spans))


def text_attribute(key: bytes, text: bytes) -> bytes:
    return export(field(2, IDS + field(9, field(1, key) + field(2, field(1, text)))))


def packed(size: int) -> bytes:
    packing = zlib.compressobj(9, wbits=31)
    return packing.compress(bytes(size)) + packing.flush()


BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "30 million empty spans": (lambda: export(EMPTY["span"] * 30_000_000), 413),
    "more spans than allowed": (lambda: export(field(2, IDS) * (MAX_SPANS + 1)), 413),
    "empty attributes": (lambda: export(field(2, IDS + EMPTY["attribute"] * 5_000_000)), 413),
    "empty events": (lambda: export(field(2, IDS + EMPTY["event"] * 5_000_000)), 413),
    "empty groups of spans": (lambda: bytes([0x0A, 0]) * 10_000_000, 413),
    "empty values in a list": (
        lambda: export(field(2, IDS + field(9, field(2, field(5, bytes([0x0A, 0]) * 5_000_000))))),
        413,
    ),
    "one text of 500 MB": (lambda: text_attribute(b"k", b"x" * 500_000_000), 413),
    "brackets in a text": (
        lambda: text_attribute(b"langfuse.observation.metadata", b"[[]," * 9_000_000),
        200,
    ),
    "numbers in a text": (
        lambda: text_attribute(b"langfuse.observation.usage_details", b'{"a":[' + b"1," * 9_000_000 + b"1]}"),
        200,
    ),
}  # fmt: skip
JSON_BODIES = {
    "brackets": lambda: b"[" + b"[]," * 20_000_000 + b"[]]",
    "spans": lambda: b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 900_000 + b"{}]}]}]}",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data_dir = tmp_path_factory.mktemp("bodies")
    yield ensure_running(data_dir, idle_timeout_s=300)
    stop_store(data_dir)


@pytest.fixture
def client(store: StoreAddress) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=store.base_url, auth=(store.public_key, store.secret_key), timeout=120
    ) as made:
        yield made


def memory_mb(store: StoreAddress) -> int:
    """Return the most memory that the server has ever had."""
    status = Path(f"/proc/{store.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def send(
    client: httpx.Client, body: bytes, kind: str = "x-protobuf", encoding: str = "gzip"
) -> httpx.Response:
    headers = {"content-type": f"application/{kind}", "content-encoding": encoding}
    return client.post(EXPORT, content=body, headers=headers)


@pytest.mark.parametrize("name", BODIES)
def test_export_that_becomes_large(name: str, client: httpx.Client, store: StoreAddress) -> None:
    """It is counted before anything is made of it."""
    make, status = BODIES[name]
    answer = send(client, gzip.compress(make(), compresslevel=1))
    assert answer.status_code == status, answer.text
    assert memory_mb(store) < MAX_MEMORY_MB
    assert client.get("/api/public/v2/observations").status_code == 200


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_that_becomes_large(name: str, client: httpx.Client, store: StoreAddress) -> None:
    """JSON is counted as well, on every endpoint."""
    body = gzip.compress(JSON_BODIES[name](), compresslevel=1)
    assert send(client, body, "json").status_code == 413
    for path in ("/api/public/scores", "/api/public/ingestion"):
        answer = client.post(path, content=body, headers={"content-encoding": "gzip"})
        assert answer.status_code in (400, 413)
    assert memory_mb(store) < MAX_MEMORY_MB


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (packed(300_000_000), 413),
        (gzip.compress(b"") * 100_000, 400),
        (gzip.compress(b"") * 3, 200),
        (gzip.compress(b"x")[:-4], 400),
        (b"not packed", 400),
    ],
    ids=["bomb", "many members", "few members", "cut off", "not packed"],
)
def test_compressed_body(body: bytes, status: int, client: httpx.Client, store: StoreAddress) -> None:
    """What is packed is unpacked within the limit, or refused."""
    assert send(client, body).status_code == status
    assert memory_mb(store) < MAX_MEMORY_MB


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "x" * 5000])
@pytest.mark.parametrize("path", [EXPORT, "/api/public/scores", "/api/public/ingestion"])
def test_unknown_encoding_is_refused(encoding: str, path: str, client: httpx.Client) -> None:
    """A body in an encoding that the store does not know is not taken for one without."""
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = client.post(path, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "with gzip" in answer.json()["message"]


def test_score_may_be_packed(client: httpx.Client) -> None:
    """What an export may do, a score may as well."""
    body = gzip.compress(b'{"name": "n", "value": 1, "traceId": "t"}')
    answer = client.post("/api/public/scores", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200


def test_counting_agrees_with_the_protocol() -> None:
    """A large export of every kind of field is counted to its end, and one that is cut off is no export."""
    request = ExportTraceServiceRequest()
    scope_spans = request.resource_spans.add().scope_spans.add()
    for number in range(5000):
        span = scope_spans.spans.add(trace_id=bytes(16), span_id=bytes(8), name="n" * 300, flags=number)
        span.start_time_unix_nano = 2**63
        span.attributes.add(key="a").value.array_value.values.add().double_value = 0.5
        span.events.add(name="e", time_unix_nano=1)
        span.links.add(trace_id=bytes(16)).attributes.add(key="k")
    body = request.SerializeToString()
    assert len(body) > 1_000_000
    check_size(body)
    with pytest.raises(ExportError, match="Failed to parse"):
        check_size(body[:-7])
    with pytest.raises(ExportError, match="Failed to parse"):
        check_size(b"\xff" * 1_000_000)
    with pytest.raises(ApiError, match="more than 50,000 spans"):
        check_size(body * 11)

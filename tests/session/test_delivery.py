"""Delivery takes what the server takes, keeps the rest, and never delays the exit."""

from __future__ import annotations

import gzip
import json
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from research_kit.errors import StoreError
from research_kit.session.backend import Backend
from research_kit.session.delivery import DeliveryProcessor, deliver_spools
from research_kit.session.scores import score_payload

DEADLINE_S = 20.0


def spans_of(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


class MisbehavingServer(ThreadingHTTPServer):
    """A real HTTP server that answers with the statuses it was told, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.request_count = 0
        self.taken: list[str] = []
        self.is_slow = False
        self.body = b"{}"
        self.max_spans = 10_000
        self.max_bytes = 100_000_000
        self.unfit = ""
        self.wants_lists = False
        self.spans: list[Span] = []
        self.scores: list[object] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: MisbehavingServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.request_count += 1
        while self.server.is_slow:
            time.sleep(0.05)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        text = self.server.body
        if status == 200 and self.path.endswith("/scores"):
            status, text = self._take_score(body)
        elif status == 200:
            content = gzip.decompress(body)
            is_too_large = len(content) > self.server.max_bytes
            status = 413 if is_too_large else self._take_spans(spans_of(content))
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _take_spans(self, spans: list[Span]) -> int:
        names = [span.name for span in spans]
        if len(spans) > self.server.max_spans:
            return 413
        if self.server.unfit in names:
            return 400
        if self.server.body == b"{}":
            self.server.taken += names
            self.server.spans += spans
        return 200

    def _take_score(self, body: bytes) -> tuple[int, bytes]:
        try:
            score = json.loads(body)
        except ValueError:
            return 400, b'{"message": "not JSON"}'
        if self.server.wants_lists and not isinstance(score, list):
            return 400, b'{"message": "expected array, received object"}'
        self.server.scores.append(score)
        return 200, b'{"id": "x"}'

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.is_slow = False
    server.shutdown()
    server.server_close()


def backend_of(server: MisbehavingServer) -> Backend:
    return Backend(state="connected", base_url=server.base_url, public_key="pk", secret_key="sk")


Make = Callable[[Callable[[], Backend]], tuple[DeliveryProcessor, Callable[[int], None]]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[DeliveryProcessor] = []

    def start(get_backend: Callable[[], Backend]) -> tuple[DeliveryProcessor, Callable[[int], None]]:
        made.append(DeliveryProcessor(get_backend, tmp_path / "spool", should_export=lambda span: True))
        return made[-1], ender_of(made[-1])

    yield start
    for processor in made:
        processor.shutdown()


def ender_of(processor: DeliveryProcessor) -> Callable[[int], None]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")

    def end_spans(count: int) -> None:
        for number in range(count):
            tracer.start_span(f"span {number}").end()

    return end_spans


def wait_for(condition: Callable[[], bool], processor: DeliveryProcessor) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, processor.state
        time.sleep(0.02)


def test_delivers_and_counts(server: MisbehavingServer, make: Make) -> None:
    """Ended spans are sent, counted and forgotten."""
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(3000)
    assert processor.force_flush(10_000)
    state = processor.state
    assert (state.outcome, state.delivered_count, state.pending_count) == ("delivered", 3000, 0)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_sends_again_after_a_passing_fault(status: int, server: MisbehavingServer, make: Make) -> None:
    """A batch that a server cannot take now is sent again, and nothing is lost."""
    server.statuses = [status]
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(3)
    wait_for(lambda: processor.state.delivered_count == 3, processor)
    assert server.request_count == 2


def test_keeps_what_is_refused_and_says_why(server: MisbehavingServer, make: Make) -> None:
    """A refused batch is kept; the reason names the key and what to check; correct keys deliver it."""
    server.statuses = [401]
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(2)
    wait_for(lambda: processor.state.outcome == "rejected", processor)
    state = processor.state
    assert state.pending_count == 2
    assert "refused the key pk (401)" in state.reason
    assert "LANGFUSE_SECRET_KEY" in state.reason
    processor.retry_now()
    wait_for(lambda: processor.state.delivered_count == 2, processor)


def test_waits_for_a_store_that_cannot_start(make: Make) -> None:
    """While the store cannot be started the spans wait, with its reason."""

    def no_store() -> Backend:
        raise StoreError("no space left on device")

    processor, end_spans = make(no_store)
    end_spans(1)
    wait_for(lambda: processor.state.outcome == "buffering", processor)
    assert "no space left on device" in processor.state.reason
    assert processor.state.pending_count == 1


def test_shutdown_is_bounded_while_the_server_hangs(server: MisbehavingServer, make: Make) -> None:
    """The exit does not wait for a server that does not answer."""
    server.is_slow = True
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(1)
    wait_for(lambda: server.request_count == 1, processor)
    processor.shutdown()  # the server goes on hanging, so returning at all is the proof
    assert server.is_slow
    server.is_slow = False
    later, _ = make(lambda: backend_of(server))
    assert later.force_flush(10_000)
    assert "span 0" in server.taken


def test_order_is_kept_after_a_fault(server: MisbehavingServer, make: Make) -> None:
    """Spans are sent in the order in which they ended, also after a fault."""
    server.statuses = [503]
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(2500)
    wait_for(lambda: processor.state.delivered_count == 2500, processor)
    assert server.taken == [f"span {number}" for number in range(2500)]


def spool_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "spool").glob("*.spool"))


def test_spool_is_gone_when_all_is_delivered(server: MisbehavingServer, make: Make, tmp_path: Path) -> None:
    """A process that could deliver everything leaves no file behind."""
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(3)
    assert processor.force_flush(10_000)
    processor.shutdown()
    assert spool_files(tmp_path) == []


def test_garbage_that_says_200_is_not_believed(server: MisbehavingServer, make: Make) -> None:
    """A page that answers 200 to everything has not taken the spans."""
    server.body = b"<html>please log in</html>"
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(1)
    wait_for(lambda: processor.state.outcome == "buffering", processor)
    assert "not Langfuse's" in processor.state.reason
    server.body = b"{}"
    processor.retry_now()
    wait_for(lambda: processor.state.delivered_count == 1, processor)


def test_batches_that_are_too_large_are_split(server: MisbehavingServer, make: Make) -> None:
    """A server that refuses large bodies gets smaller ones, and everything arrives."""
    server.max_spans = 10
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(100)
    wait_for(lambda: processor.state.delivered_count == 100, processor)
    assert server.taken == [f"span {number}" for number in range(100)]


def test_span_that_is_too_large_by_itself_arrives_with_its_texts_cut(
    server: MisbehavingServer, make: Make
) -> None:
    """An observation that no server takes whole is not lost: its long texts are cut, and it says so."""
    server.max_bytes = 1_000_000
    processor, end_spans = make(lambda: backend_of(server))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    attributes = {"langfuse.observation.output": "word " * 400_000, "session.id": "s"}
    provider.get_tracer("test").start_span("large", attributes=attributes).end()
    end_spans(1)
    assert processor.force_flush(10_000)
    assert (processor.state.refused_count, server.taken) == (0, ["large", "span 0"])
    found = {attribute.key: attribute.value.string_value for attribute in server.spans[0].attributes}
    assert found["session.id"] == "s"
    assert json.loads(found["langfuse.observation.output"]) == "word " * 20_000 + "…"
    assert "output of 2000000 characters" in found["langfuse.observation.metadata.cut"]


def test_unfit_span_is_kept_aside(server: MisbehavingServer, make: Make, tmp_path: Path) -> None:
    """A span that the server refuses for its content does not hold up the others, and is not lost."""
    server.unfit = "span 1"
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(4)
    wait_for(lambda: processor.state.delivered_count == 3, processor)
    assert server.taken == ["span 0", "span 2", "span 3"]
    assert processor.state.refused_count == 1
    server.unfit = ""

    def deliver_refused() -> int:
        folder = tmp_path / "spool"
        state = deliver_spools(lambda: backend_of(server), folder, timeout_s=10, includes_refused=True)
        return state.delivered_count

    assert deliver_refused() == 0  # its owner lives, and writes to the file
    processor.shutdown()
    assert deliver_refused() == 1
    assert server.taken[-1] == "span 1"


def test_open_root_of_a_dead_process_arrives_as_an_error(
    server: MisbehavingServer, make: Make, tmp_path: Path
) -> None:
    """A root that was open when its process ended is delivered as an error by the next."""
    processor, _ = make(lambda: backend_of(server))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("root"):
        tracer.start_span("child").end()
        assert processor.force_flush(10_000)
        processor.shutdown()
    assert server.taken == ["child"]
    later, _ = make(lambda: backend_of(server))
    assert later.force_flush(10_000)
    # The span ended after the shutdown, which a dead process cannot do: take the file of the open root alone.
    root = next(span for span in server.spans if span.name == "root" and span.status.message == "kernel died")
    assert root.status.code == 2


def test_root_that_ended_does_not_open_again(server: MisbehavingServer, make: Make, tmp_path: Path) -> None:
    """An observation that begins inside a root after its end does not make the root an error."""
    processor, _ = make(lambda: backend_of(server))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    root = tracer.start_span("root")
    root.end()
    tracer.start_span("late", context=set_span_in_context(root)).end()
    assert processor.force_flush(10_000)
    processor.shutdown()
    assert (server.taken, spool_files(tmp_path)) == (["root", "late"], [])


def test_score_is_an_object_and_a_list_only_when_asked(server: MisbehavingServer, make: Make) -> None:
    """A score is sent as one object; a server that wants lists gets a list."""
    processor, _ = make(lambda: backend_of(server))
    processor.add_score(b'{"id": "a", "name": "good", "value": 1}')
    wait_for(lambda: processor.state.delivered_count == 1, processor)
    server.wants_lists = True
    processor.add_score(b'{"id": "b", "name": "good", "value": 1}')
    wait_for(lambda: processor.state.delivered_count == 2, processor)
    assert [score["id"] if isinstance(score, dict) else score[0]["id"] for score in server.scores] == [
        "a",
        "b",
    ]
    assert isinstance(server.scores[1], list)


def test_what_was_taken_over_is_free_after_shutdown(
    server: MisbehavingServer, make: Make, tmp_path: Path
) -> None:
    """Spools that one command took over and could not deliver can be taken by the next one at once."""
    away = Backend(state="connected", base_url="http://127.0.0.1:9", public_key="pk", secret_key="sk")
    processor, end_spans = make(lambda: away)
    end_spans(3)
    processor.shutdown()
    for _ in range(3):
        # Each is kept by `make`: nothing is freed by being thrown away.
        later, _ = make(lambda: away)
        later.force_flush(10)
        wait_for(lambda later=later: later.state.pending_count == 3, later)  # type: ignore[misc]
        later.shutdown()
    state = deliver_spools(lambda: backend_of(server), tmp_path / "spool", timeout_s=10)
    assert (state.delivered_count, state.pending_count) == (3, 0)


def test_what_ends_during_a_shutdown_is_kept(make: Make, tmp_path: Path) -> None:
    """Spans that threads end while the process shuts down are all on disk afterwards."""
    away = Backend(state="connected", base_url="http://127.0.0.1:9", public_key="pk", secret_key="sk")
    processor, end_spans = make(lambda: away)
    threads = [Thread(target=end_spans, args=(200,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    processor.shutdown()
    for thread in threads:
        thread.join()
    contents = b"".join(path.read_bytes() for path in (tmp_path / "spool").glob("*.spool"))
    assert contents.count(b"span 1") == 4 * sum(str(number).startswith("1") for number in range(200))


def test_a_file_that_cannot_be_read_holds_up_no_other(
    server: MisbehavingServer, make: Make, tmp_path: Path
) -> None:
    """A spool that is no file, or somebody else's, is passed over."""
    (tmp_path / "spool" / "folder.spool").mkdir(parents=True)
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(2)
    assert processor.force_flush(10_000)
    assert len(server.taken) == 2


@pytest.mark.parametrize("has_refuge", [True, False])
def test_folder_that_cannot_be_written(
    has_refuge: bool,
    server: MisbehavingServer,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ends is kept in a temporary folder, from where the next process delivers it, else in memory."""
    (tmp_path / "spool").write_text("not a folder")
    (tmp_path / "tmp").mkdir() if has_refuge else (tmp_path / "tmp").write_text("not a folder either")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    server.statuses = [503]
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(2)
    wait_for(lambda: "answered 503" in processor.state.reason, processor)
    assert processor.state.pending_count == 2
    if has_refuge:
        [path] = (tmp_path / "tmp").glob("*/spool/spool/*.spool")
        assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
        server.statuses = [503, 503]
        processor.shutdown()
        processor, _ = make(lambda: backend_of(server))
    assert processor.force_flush(10_000)
    assert server.taken == ["span 0", "span 1"]


def test_server_that_takes_nothing_is_not_asked_for_each_entry(server: MisbehavingServer, make: Make) -> None:
    """When one entry after the other is refused for its content, the rest waits instead."""
    server.statuses = [400] * 500
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(200)
    wait_for(lambda: processor.state.refused_count == 5, processor)
    wait_for(lambda: "answered 400" in processor.state.reason, processor)
    assert processor.state.pending_count == 195
    assert server.request_count < 50


def test_part_that_a_server_did_not_take_is_sent_again(server: MisbehavingServer, make: Make) -> None:
    """An answer 200 that says how many spans were rejected is not taken for success."""
    server.body = b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}'
    processor, end_spans = make(lambda: backend_of(server))
    end_spans(1)
    wait_for(lambda: processor.state.refused_count == 1, processor)
    assert "took only a part" in processor.state.reason


def test_score_with_half_a_character_holds_up_nothing(server: MisbehavingServer, make: Make) -> None:
    """A score is sent as it was written, whatever is in it."""
    processor, end_spans = make(lambda: backend_of(server))
    processor.add_score(score_payload("q", 1, target={"traceId": "t"}, comment="a\ud800", score_id=None))
    processor.add_score(b"not JSON")
    end_spans(1)
    assert processor.force_flush(10_000)
    assert (server.taken, server.scores[0]["comment"]) == (["span 0"], "a?")  # type: ignore[index]


def test_two_processes_share_a_folder(server: MisbehavingServer, make: Make, tmp_path: Path) -> None:
    """Two processes that live do not touch each other's files."""
    first, end_first = make(lambda: backend_of(server))
    second, end_second = make(lambda: backend_of(server))
    end_first(2)
    end_second(2)
    assert first.force_flush(10_000)
    assert second.force_flush(10_000)
    assert len(server.taken) == 4

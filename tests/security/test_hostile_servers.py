"""Servers that mean harm: whatever they answer, reads, transfers and deliveries end, and say why."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from pouring_server import Script, Write, drip, page, pouring, whole

from research_kit.errors import BackendError, ResearchKitError
from research_kit.session.backend import Backend, fetch_project_id
from research_kit.session.delivery import DeliveryProcessor, deliver_spools
from research_kit.session.spool import Kind, Spool, SpoolKey
from research_kit.traces import ALL_SESSIONS, TraceReader, iter_tables, observations_df, scores_df
from research_kit.transfer.target import Target
from research_kit.wire import (
    BoundedClient,
    Bounds,
    JsonError,
    open_client,
    parse_json,
    plain_words,
    retry_after_s,
)

TIMEOUT_S = 1.0
ROW = {
    "id": "0",
    "traceId": "t",
    "startTime": "2026-11-20T09:00:00.000Z",
    "endTime": "2026-11-20T09:00:01.000Z",
    "type": "SPAN",
    "name": "n",
    "level": "DEFAULT",
    "isRootObservation": True,
    "metadata": {},
}

SCORE = {"id": "s", "name": "n", "value": 1, "timestamp": "t", "subject": {"kind": "trace", "id": "t"}}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {**ROW, "id": f"{number:016x}", **changes}


def bomb(size: int) -> bytes:
    packing = zlib.compressobj(9, wbits=31)
    return packing.compress(bytes(size)) + packing.flush()


def answer_with(content: bytes) -> Script:
    return lambda path, write: write(content)


def dripping_body(path: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    drip(write, b" ", 0.1)


def dripping_until_close(path: str, write: Write) -> None:
    """A body without a length: where it is cut, it could be whole."""
    write(b'HTTP/1.1 200 OK\r\n\r\n{"data": [{"id": "p"}]}')
    drip(write, b" ", 0.1)


def dripping_head(path: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\nx-header: ")
    drip(write, b"x", 0.1)


def endless_interim(path: str, write: Write) -> None:
    drip(write, b"HTTP/1.1 100 Continue\r\n\r\n", 0.05)


def endless_body(path: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\n\r\n")
    drip(write, b'{"data": [' + b" " * 1_000_000, 0)


def endless_packed(path: str, write: Write) -> None:
    """Members of gzip that unpack to nothing, for ever."""
    write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n")
    drip(write, gzip.compress(b"") * 1000, 0)


TOO_MUCH = "more than [0-9,]+ (values|bytes)"
PACKED = "content-encoding: gzip\r\n"
ANSWERS: dict[str, tuple[Script, str]] = {
    "body byte by byte": (dripping_body, "not complete after 2 s"),
    "body without a length": (dripping_until_close, "not complete after 2 s"),
    "head byte by byte": (dripping_head, "not complete after 2 s"),
    "endless interim answers": (endless_interim, "not complete after 2 s"),
    "endless body": (endless_body, "more than [0-9,]+ bytes"),
    "endless packed body": (endless_packed, "more than [0-9,]+ bytes|not complete"),
    "bomb": (answer_with(whole(bomb(400_000_000), headers=PACKED)), TOO_MUCH),
    "brackets": (answer_with(whole(b'{"data":[' + b"[]," * 9_000_000 + b"[]]}")), TOO_MUCH),
    "deep": (answer_with(whole(b"[" * 200_000)), "nested too deeply"),
    "unknown encoding": (answer_with(whole(b"{}", headers="content-encoding: br\r\n")), "encoded as 'br'"),
    "broken encoding": (answer_with(whole(b"{}", headers=PACKED)), "cannot be unpacked"),
    "other characters": (answer_with(whole('{"data": []}'.encode("utf-16"))), "no JSON in UTF-8"),
    "a list": (answer_with(whole(b"[]")), "instead of a JSON object|not Langfuse|does not answer"),
    "number of 5000 digits": (answer_with(whole(b'{"data": [' + b"9" * 5000 + b"]}")), "no JSON|list 'data'"),
    "rows that are none": (answer_with(page([1, None])), "list 'data'|does not answer|not Langfuse"),
    "nothing": (answer_with(b""), "no answer|Cannot reach|disconnected"),
}  # fmt: skip


@pytest.fixture(params=ANSWERS)
def hostile(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The address of a server, and how an error describes its answer."""
    script, words = ANSWERS[request.param]
    with pouring(script) as base_url:
        yield base_url, words


def reader_of(base_url: str, **options: Any) -> TraceReader:
    return TraceReader(base_url, "pk", "sk", timeout_s=TIMEOUT_S, **options)


def test_read_ends_with_an_error(hostile: tuple[str, str]) -> None:
    """A frame of whatever answer is our error, which names the server and what is wrong."""
    base_url, words = hostile
    with reader_of(base_url) as reader, pytest.raises(BackendError, match=f"{base_url}.*({words})"):
        observations_df(ALL_SESSIONS, reader=reader, progress=False)
    with reader_of(base_url) as reader, pytest.raises(BackendError):
        scores_df(ALL_SESSIONS, reader=reader, progress=False)


def test_project_is_asked_for_within_bounds(
    hostile: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question for the project ends the same way."""
    # The time that a question may take is no setting; waiting for it would take this test minutes.
    monkeypatch.setattr("research_kit.session.backend._PROBE_TIMEOUT_S", TIMEOUT_S)
    backend = Backend(state="connected", base_url=hostile[0], public_key="pk", secret_key="sk")
    with pytest.raises(BackendError, match=hostile[0]):
        fetch_project_id(backend)


def test_memory_of_a_read_is_bounded() -> None:
    """A bomb and an endless answer are given up within a memory that neither would fit into."""
    code = (
        "import resource, sys; from research_kit.traces import TraceReader\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, 2_500_000_000))\n"
        "try:\n    list(TraceReader(sys.argv[1], 'pk', 'sk', timeout_s=30).list_observations())\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print(int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) // 1024)\n"
    )
    for script in (
        answer_with(whole(bomb(3_000_000_000), headers="content-encoding: gzip\r\n")),
        endless_body,
    ):
        with pouring(script) as base_url:
            done = subprocess.run(
                [sys.executable, "-c", code, base_url], capture_output=True, text=True, check=True
            )
        kind, memory_mb = done.stdout.split()
        assert (kind, int(memory_mb) < 600) == ("BackendError", True), done.stdout


PAGES: dict[str, tuple[Callable[[int], bytes], str]] = {
    "the same rows": (lambda n: page([row(i) for i in range(1000)], f"c{n}"), "does not move on"),
    "the same rows shuffled": (
        lambda n: page([row((i * 7 + n) % 1000) for i in range(1000)], f"c{n}"),
        "does not move on",
    ),
    "rows in turn": (
        lambda n: page([row(i + 1000 * (n % 3)) for i in range(1000)], f"c{n}"),
        "does not move on",
    ),
    "no rows": (lambda n: page([], f"c{n}"), "does not move on"),
    "one new row each": (lambda n: page([row(n)], f"c{n}"), "hardly any rows"),
    "new rows without end": (
        lambda n: page([row(1000 * n + i, input="x" * 4000) for i in range(1000)], f"c{n}"),
        "more than 20 MB",
    ),
    "cursor is a list": (lambda n: page([row(n)], [n]), "a cursor that is none"),
    "cursor without end": (lambda n: page([row(n)], "c" * 100_000), "a cursor that is none"),
    "cursor is empty": (lambda n: page([row(n)], ""), "a cursor that is none"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_pages_without_end(name: str) -> None:
    """A server that always points to a further page ends the read, however new its cursors are."""
    make, words = PAGES[name]
    numbers = itertools.count()
    with (
        pouring(lambda path, write: write(make(next(numbers)))) as base_url,
        reader_of(base_url, max_read_mb=20) as reader,
        pytest.raises(BackendError, match=words),
    ):
        observations_df(ALL_SESSIONS, reader=reader, progress=False)
    assert next(numbers) < 300


def test_rows_beyond_the_allowance_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into one frame is read with iter_tables, or after raising the setting."""
    pages = [page([row(1000 * n + i, input="x" * 4000) for i in range(1000)], f"{n + 1}") for n in range(6)]

    def script(path: str, write: Write) -> None:
        number = int(httpx.URL(path).params.get("cursor", 0))
        write(page([]) if number == len(pages) else pages[number])

    with pouring(script) as base_url, reader_of(base_url, max_read_mb=20) as reader:
        with pytest.raises(BackendError, match="iter_tables, or raise RESEARCH_KIT_READ_MAX_MB"):
            observations_df(ALL_SESSIONS, reader=reader, progress=False)
        assert sum(table.num_rows for table in iter_tables(ALL_SESSIONS, reader=reader)) == 6000


def test_answer_beyond_the_bound_is_asked_for_in_smaller_pages() -> None:
    """Rows that are large are read all the same, fewer at a time."""
    limits: list[int] = []

    def script(path: str, write: Write) -> None:
        params = httpx.URL(path).params
        limit, first = int(params["limit"]), int(params.get("cursor", 0))
        limits.append(limit)
        rows = [row(n, input="x" * 1_000_000) for n in range(first, min(first + limit, 100))]
        write(page(rows, str(first + limit) if first + limit < 100 else None))

    with pouring(script) as base_url, TraceReader(base_url, "pk", "sk", timeout_s=60) as reader:
        assert len(reader.read_observations().rows) == 100
    assert limits[:5] == [1000, 500, 250, 125, 62]


@pytest.mark.parametrize("cost", ["1e999", "-1e999", "Infinity", "1" + "0" * 400])
def test_number_that_is_none_is_missing_with_a_warning(cost: str) -> None:
    """One such value hides no other, and sums stay finite."""
    rows = json.dumps([row(1, costDetails={"total": 0.5}), row(2, costDetails={"total": "COST"})])
    body = whole(f'{{"data": {rows}, "meta": {{}}}}'.replace('"COST"', cost).encode())
    with (
        pouring(answer_with(body)) as base_url,
        reader_of(base_url) as reader,
        pytest.warns(UserWarning, match=r"1 of 2 values of 'cost_usd' are missing"),
    ):
        frame = observations_df(ALL_SESSIONS, reader=reader, progress=False)
    assert frame["cost_usd"].sum() == 0.5
    assert pd.isna(frame["cost_usd"]).sum() == 1


@pytest.mark.parametrize("key", ["usageDetails", "metadata", "tags", "startTime", "costDetails", "latency"])
@pytest.mark.parametrize("value", [[], [1], {"a": []}, "x", 7, True, 10**400, "9" * 5000, {"total": {}}])
def test_value_of_another_kind_is_our_error(key: str, value: object) -> None:
    """A row in which anything can stand is read or refused, and never ends in another exception."""
    with (
        pouring(answer_with(page([row(1), row(2, **{key: value})]))) as base_url,
        reader_of(base_url) as reader,
    ):
        said = ""
        try:
            observations_df(ALL_SESSIONS, reader=reader, progress=False)
        except (ResearchKitError, UserWarning) as told:
            said = str(told)
    assert len(said) < 1000


def test_push_ends(hostile: tuple[str, str]) -> None:
    """Whatever the other side answers, sending ends: refused, or with an error."""
    target = Target(hostile[0], "pk", "sk", sleep_s=lambda duration_s: None)
    # The time that an answer may take is no setting.
    target._client.timeout = TIMEOUT_S
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("research_kit.transfer.target._BOUNDS", Bounds(total_s=2 * TIMEOUT_S))
        said = hostile[0]
        try:
            target.send_observations([row(1), row(2)])
            target.send_scores([SCORE])
        except BackendError as error:
            said = str(error)
    target.close()
    assert hostile[0] in said


WISHES = {
    "": None, "0": 0.0, "7": 7.0, "1.5": 1.5, "86400": 86400.0, "9" * 400: 604800.0, "-5": None, "nan": None,
    "inf": None, "1e3": None, "٣": None, "²": None, "soon": None, "7 s": None,
    "Fri, 20 Nov 2020 09:00:00 GMT": 0.0, "Fri, 20 Nov 2020 09:00:00": 0.0,
    "Fri, 99 Nov 99999 09:00:00 GMT": None,
    "Fri, 20 Nov 9999 09:00:00 GMT": 604800.0, "1" * 20_000 + ".": 604800.0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WISHES.items(), ids=[text[:20] or "empty" for text in WISHES])
def test_retry_after_has_one_reading(text: str, expected: float | None) -> None:
    """Seconds, dates with and without a zone; everything else is no wish, and none is longer than a week."""
    assert retry_after_s({"retry-after": text}) == expected
    assert retry_after_s({}) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b"1e999", b"-1e999", b"NaN", b"[Infinity]", b"1" + b"0" * 30, b"9" * 5000,
     b"\xff", '"é"'.encode("latin-1"), '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}"],
    ids=repr,
)  # fmt: skip
def test_json_that_cannot_be_used_has_one_error(content: bytes) -> None:
    """Whatever is wrong, the error is `JsonError`."""
    with pytest.raises(JsonError):
        parse_json(content)


def test_words_of_a_server_steer_no_terminal() -> None:
    """What a server says is one line of printable letters."""
    words = plain_words("a\x1b[2J\r\nb\u202e\ud800" + "x" * 9000)
    assert words.isprintable()
    assert words.startswith("a")
    assert len(plain_words("y" * 10_000)) == 200


def test_requests_side_by_side_keep_their_own_time() -> None:
    """A slow answer is cut without harm to the client: the next request is answered."""
    first = threading.Event()

    def script(path: str, write: Write) -> None:
        if path == "/slow":
            dripping_body(path, write)
        write(whole(b"{}"))
        first.set()

    with pouring(script) as base_url, open_client(base_url, timeout_s=5) as client:
        bounded = BoundedClient(client)
        with pytest.raises(httpx.TransportError, match=r"not complete after 0\.5 s"):
            bounded.request("GET", f"{base_url}/slow", bounds=Bounds(total_s=0.5))
        assert bounded.request("GET", f"{base_url}/fast", bounds=Bounds(total_s=5)).json() == {}


def test_cookies_of_a_server_are_not_kept() -> None:
    """New ones with every answer would fill the memory, and every later request."""
    cookies = (f"set-cookie: c{number}={'x' * 1000}\r\n" for number in itertools.count())
    seen: list[str] = []

    def script(path: str, write: Write) -> None:
        seen.append(path)
        numbered = f"{len(seen)}" if len(seen) < 5 else None
        rows = page([row(1000 * len(seen) + i) for i in range(1000)], numbered)
        write(
            rows.replace(b"\r\n\r\n", b"\r\n" + "".join(itertools.islice(cookies, 20)).encode() + b"\r\n", 1)
        )

    with pouring(script) as base_url, reader_of(base_url) as reader:
        assert len(reader.read_observations().rows) == 5000
        assert len(reader._transport._client.cookies.jar) == 0


@pytest.mark.parametrize(
    "name", ["deep", "bomb", "body byte by byte", "body without a length", "unknown encoding", "a list"]
)
def test_delivery_says_what_is_wrong_and_keeps_everything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that cannot be used is a reason in the state, and nothing has left the spool."""
    monkeypatch.setenv("LANGFUSE_TIMEOUT", "1")
    script, words = ANSWERS[name]
    with pouring(script) as base_url:
        backend = Backend(state="connected", base_url=base_url, public_key="pk", secret_key="sk")
        processor = DeliveryProcessor(lambda: backend, tmp_path / "spool", should_export=lambda _: True)
        processor.add_score(b'{"id": "a", "name": "n", "value": 1, "traceId": "t"}')
        processor.force_flush(6_000)
        state = processor.state
        processor.shutdown()
    if name == "a list":  # which is JSON: an answer 200 that says nothing of what was rejected
        assert state.delivered_count == 1
        return
    assert (state.outcome, state.pending_count, state.delivered_count) == ("buffering", 1, 0)
    assert re.search(words, state.reason), state.reason


def test_foreign_records_hold_up_nothing(tmp_path: Path) -> None:
    """A spool in which records hold anything at all is read, and what is whole in it is delivered."""
    folder = tmp_path / "spool"
    spool = Spool.create(folder)
    key = SpoolKey(bytes(16), bytes(8))
    for kind, payload in (
        (Kind.OPEN, b"no span"),
        (Kind.OPEN, b""),
        (Kind.SPAN, b"\xff" * 50),
        (Kind.SCORE, b"["),
    ):
        spool.append(kind, payload, key=key._replace(span_id=bytes([kind] * 8)))
    spool._write(Kind.ACCEPTED, b"short", key)
    spool._write(Kind.LOST, b"", key)
    spool.append(Kind.SCORE, b'{"id": "good"}')
    spool.close()
    taken: list[bytes] = []

    def script(path: str, write: Write) -> None:
        taken.append(path.encode())
        write(whole(b"{}"))

    with pouring(script) as base_url:
        backend = Backend(state="connected", base_url=base_url, public_key="pk", secret_key="sk")
        state = deliver_spools(lambda: backend, folder, timeout_s=20)
    assert (state.pending_count, state.delivered_count) == (0, 3)
    assert len(taken) >= 2


def test_false_heads_do_not_take_the_square_of_a_file(tmp_path: Path) -> None:
    """200,000 heads that each claim 50 MB are passed over, and the records around them are found."""
    folder = tmp_path / "spool"
    spool = Spool.create(folder)
    spool.append(Kind.SCORE, b"before")
    path = spool.path
    with path.open("ab") as file:
        head = struct.pack(">4sB16s8sII", b"\xf1rk\x01", 1, bytes(16), bytes(8), 50_000_000, 7)
        file.write(head * 200_000 + bytes(60_000_000))
    spool.append(Kind.SCORE, b"behind")
    spool.close()
    before_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    found = Spool.adopt(path)
    spent_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before_s
    assert found is not None
    assert [payload for _, payload in found.take(max_count=9, max_bytes=999)] == [b"before", b"behind"]
    found.close()
    # A pass over the file for each head would take hundreds of seconds of the processor.
    assert spent_s < 20

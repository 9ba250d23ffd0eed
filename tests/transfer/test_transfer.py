"""Push and pull between two real stores: what arrives is what was there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from misbehaving_server import MisbehavingServer, running_server

import research_kit as rk
from research_kit.cli import main
from research_kit.errors import BackendError, ConfigError
from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.transfer.target import Target

RECORDED = Path(__file__).parents[1] / "contract" / "data"
GROUPS = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
# When and where a row arrived is not part of what was moved.
OWN = ("createdAt", "updatedAt", "projectId")


@pytest.fixture(scope="module")
def filled_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a store that has everything that clients of many kinds have sent to a real server."""
    data_dir = tmp_path_factory.mktemp("filled")
    store = ensure_running(data_dir, idle_timeout_s=300)
    with client_of(store) as client:
        for case in json.loads((RECORDED / "ingest" / "index.json").read_text()):
            content = (RECORDED / "ingest" / case["file"]).read_bytes() if case["file"] else b""
            path = case.get("path", "/api/public/otel/v1/traces")
            client.post(path, content=content, headers=case.get("headers"))
        for case in json.loads((RECORDED / "scores.json").read_text()):
            client.request(case["method"], case["path"], json=case.get("body"))
    yield data_dir
    stop_store(data_dir)


@pytest.fixture
def source(filled_dir: Path, monkeypatch: pytest.MonkeyPatch) -> StoreAddress:
    """The filled store, as the embedded store of this user."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(filled_dir))
    return ensure_running(filled_dir)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreAddress]:
    """An empty store that plays the Langfuse server whose keys are set."""
    data_dir = tmp_path / "target"
    address = ensure_running(data_dir, idle_timeout_s=300)
    use(monkeypatch, address)
    yield address
    stop_store(data_dir)


def use(monkeypatch: pytest.MonkeyPatch, address: StoreAddress, *, base_url: str | None = None) -> None:
    monkeypatch.setenv("LANGFUSE_BASE_URL", base_url or address.base_url)
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", address.public_key)
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", address.secret_key)


def client_of(address: StoreAddress) -> httpx.Client:
    keys = (address.public_key, address.secret_key)
    return httpx.Client(base_url=address.base_url, auth=keys, timeout=30)


def pages(address: StoreAddress, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with client_of(address) as client:
        while True:
            answer = client.get(path, params=params).raise_for_status().json()
            rows += answer["data"]
            if not answer["meta"].get("cursor"):
                return rows
            params = {**params, "cursor": answer["meta"]["cursor"]}


def observations(address: StoreAddress, **more: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in OWN}
        for row in pages(address, "/api/public/v2/observations", {"fields": GROUPS, "limit": "500", **more})
    ]


def scores(address: StoreAddress) -> list[dict[str, Any]]:
    params = {"fields": "details,subject,annotation", "limit": "100"}
    rows = pages(address, "/api/public/v3/scores", params)
    return [{key: value for key, value in row.items() if key not in OWN} for row in rows]


def test_push_moves_everything_unchanged(source: StoreAddress, target: StoreAddress) -> None:
    """Observations of every kind and all scores read the same from the server, also the second time."""
    for _ in range(2):
        moved = rk.push()
        assert moved.refused == ()
        here, there = observations(source), observations(target)
        assert len(there) == moved.observation_count == len(here) > 300
        for row, other in zip(here, there, strict=True):
            assert other == row
        assert scores(target) == scores(source)
        assert moved.score_count == len(scores(source)) > 20


def test_push_moves_one_session(source: StoreAddress, target: StoreAddress) -> None:
    """With a session only that one is moved, with the scores of its traces."""
    session_id = next(row["sessionId"] for row in observations(source) if row["sessionId"])
    assert main(["push", "--session", session_id]) == 0
    assert observations(target) == observations(source, sessionId=session_id)
    moved = {row["traceId"] for row in observations(target)}
    subjects = [score["subject"] for score in scores(target)]
    assert all(s.get("traceId", s["id"]) in {*moved, session_id} for s in subjects)


def test_push_goes_on_after_an_interruption(
    source: StoreAddress, target: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that was broken off sends the rest, and nothing that the server has taken before."""
    taken: list[int] = []

    def stop_after_two(count: int) -> None:
        taken.append(count)
        if len(taken) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rk.push(on_progress=stop_after_two)
    assert len(observations(target)) == sum(taken)
    again: list[int] = []
    rk.push(on_progress=again.append)
    assert observations(target) == observations(source)
    # The moment at which the first part ended, and the newest one, are read twice.
    assert len(observations(source)) - sum(taken) <= sum(again) < len(observations(source))


def post(address: StoreAddress, number: int, start_ms: int, *, scope: str = "other", **texts: str) -> None:
    """Send one observation of a client of no special kind."""
    attributes = [
        {"key": key.replace("__", "."), "value": {"stringValue": text}} for key, text in texts.items()
    ]
    post_spans(address, [span(number, start_ms, attributes=attributes)], scope=scope)


def span(number: int, start_ms: int, **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "late",
        "startTimeUnixNano": str(start_ms * 1_000_000),
        "endTimeUnixNano": str(start_ms * 1_000_000),
        **more,
    }


def post_spans(address: StoreAddress, spans: list[dict[str, Any]], *, scope: str = "other") -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"scope": {"name": scope}, "spans": spans}]}]}
    with client_of(address) as client:
        client.post("/api/public/otel/v1/traces", json=body).raise_for_status()


def test_push_sends_what_arrived_while_it_was_interrupted(
    tmp_path: Path, target: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives late, with a start in the part that was already sent, is sent as well."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(tmp_path / "late"))
    mine = ensure_running(tmp_path / "late", idle_timeout_s=300)
    try:
        post_spans(mine, [span(number, 1_795_165_200_000 + number) for number in range(1, 251)])

        def stop(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rk.push(on_progress=stop)
        post(mine, 900, 1_795_165_200_000 + 249)
        rk.push()
        assert observations(target) == observations(mine)
        assert len(observations(target)) == 251
    finally:
        stop_store(tmp_path / "late")


def test_push_keeps_texts_that_look_like_numbers(
    tmp_path: Path, target: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids and versions such as 1e3 and 1.50 stay what they are, whoever sent them."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(tmp_path / "odd"))
    mine = ensure_running(tmp_path / "odd", idle_timeout_s=300)
    texts = {
        "session__id": "1e3",
        "user__id": "1.50",
        "langfuse__version": "2.10",
        "langfuse__release": "007",
    }
    try:
        post(mine, 1, 1_795_165_200_000, **texts)
        post(mine, 2, 1_795_165_200_000, scope="langfuse-sdk", **texts)
        rk.push()
        assert observations(target) == observations(mine)
        assert {row["sessionId"] for row in observations(target)} == {"1e3"}
    finally:
        stop_store(tmp_path / "odd")


def test_push_notes_what_a_server_rejects_in_part() -> None:
    """A success that names rejected spans is no success for these."""
    row = {"id": "a", "traceId": "b", "metadata": {}, "level": "DEFAULT", "name": "", "type": "SPAN"}
    row |= {"startTime": "2026-11-20T09:00:00.000Z", "endTime": None}
    partial = {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=partial))
    sender = Target("http://127.0.0.1:1", "pk", "sk", transport=transport)
    sender.send_observations([row, {**row, "id": "c"}])
    assert sender.refused == ["observation a of trace b: too old", "observation c of trace b: too old"]


def test_push_waits_as_long_as_it_is_told() -> None:
    """Retry-After counts, in seconds and as a date."""
    answers = iter(["300", "Fri, 20 Nov 2020 09:00:00 GMT", None])
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        wish = next(answers)
        return (
            httpx.Response(200, json={"data": [{"id": "p"}]})
            if wish is None
            else httpx.Response(429, headers={"retry-after": wish})
        )

    transport = httpx.MockTransport(answer)
    sender = Target("http://127.0.0.1:1", "pk", "sk", sleep_s=waited.append, transport=transport)
    assert sender.project_id() == "p"
    assert waited == [300.0, 1.0]


@pytest.mark.parametrize("address", ["langfuse.example", "http://", "http://[::1", "ftp://here"])
def test_push_refuses_what_is_no_address(address: str) -> None:
    """An address that cannot be one is refused at once."""
    with pytest.raises(ConfigError, match="is no web address"):
        Target(address, "pk", "sk")


@pytest.fixture
def front(target: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    """The target behind a server that misbehaves on command."""
    with running_server(target.base_url) as server:
        use(monkeypatch, target, base_url=server.base_url)
        yield server


def test_push_waits_for_a_server_that_is_busy(
    source: StoreAddress, target: StoreAddress, front: MisbehavingServer
) -> None:
    """A server that answers 503 for a while gets everything in the end."""
    front.misbehave("status", status=503)
    waited: list[float] = []

    def heal(duration_s: float) -> None:
        waited.append(duration_s)
        front.heal()

    patient = Target(front.base_url, target.public_key, target.secret_key, sleep_s=heal)
    rows = pages(source, "/api/public/v2/observations", {"fields": GROUPS, "limit": "50"})[:50]
    patient.send_observations(rows)
    patient.close()
    assert len(observations(target)) == 50
    assert waited


def test_push_divides_what_is_too_large(source: StoreAddress, target: StoreAddress, tmp_path: Path) -> None:
    """A batch that the server refuses is divided, and only what is refused by itself is left out."""
    rows = pages(source, "/api/public/v2/observations", {"fields": GROUPS, "limit": "20"})[:20]
    rows[7] = {**rows[7], "id": "", "traceId": rows[7]["traceId"]}
    sender = Target(target.base_url, target.public_key, target.secret_key)
    sender.send_observations(rows)
    sender.close()
    [line] = sender.refused
    assert line.startswith(f"observation  of trace {rows[7]['traceId']}: ")
    assert len(observations(target)) == 19


def test_pull_makes_a_session_available_offline(
    source: StoreAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pulled session is in the embedded store as it is on the server."""
    session_id = next(row["sessionId"] for row in observations(source) if row["sessionId"])
    use(monkeypatch, source)
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(tmp_path / "mine"))
    try:
        assert main(["pull", session_id]) == 0
        mine = ensure_running(tmp_path / "mine")
        assert observations(mine) == observations(source, sessionId=session_id)
        with pytest.raises(ConfigError, match=r"no observations of the session 'absent'. Check the id"):
            rk.pull("absent")
    finally:
        stop_store(tmp_path / "mine")


def test_push_refuses_what_cannot_be(
    source: StoreAddress, target: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself, a wrong key, a missing key and a wrong address are told apart."""
    with pytest.raises(ConfigError, match="is the embedded store itself"):
        rk.push(source.base_url, public_key=source.public_key, secret_key=source.secret_key)
    with pytest.raises(BackendError, match=r"answered 401 for the public key.*both keys belong"):
        rk.push(secret_key="sk-lf-wrong")
    with pytest.raises(ConfigError, match="is no web address"):
        rk.push("langfuse.example")
    monkeypatch.delenv("LANGFUSE_PUBLIC_KEY")
    monkeypatch.delenv("LANGFUSE_SECRET_KEY")
    with pytest.raises(ConfigError, match="keys of the Langfuse server are missing"):
        rk.push()

"""What happens when there is too much: of a body, or on the disk."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from exports import export_of, make_span
from starlette.testclient import TestClient

from research_kit.store.app import build_app
from research_kit.store.bodies import MAX_JSON_BYTES
from research_kit.store.context import Store
from research_kit.store.database import Database
from research_kit.store.state import Credentials

TRACES = "/api/public/otel/v1/traces"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def app(database: Database) -> Iterator[TestClient]:
    credentials = Credentials(public_key="pk", secret_key="sk", project_id="p")
    store = Store(database=database, credentials=credentials, version="0", port=1)
    with TestClient(build_app(store), base_url="http://127.0.0.1") as client:
        client.auth = ("pk", "sk")
        yield client


def test_full_disk_is_said_and_nothing_is_half_written(app: TestClient, database: Database) -> None:
    """A database that cannot grow answers 507; what it has is read, and it goes on when there is room."""

    def send(number: int, length: int) -> int:
        span = make_span(number, trace=number, langfuse__observation__input="x" * length)
        return app.post(TRACES, json=export_of(span, span)).status_code

    assert send(1, 10) == 200
    with database.writing() as connection:
        (page_count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {page_count + 40}")
    answers = [send(number, 100_000) for number in range(2, 6)]
    assert (answers[0], answers[-1]) == (200, 507)
    listed = app.get("/api/public/v2/observations").json()["data"]
    assert len(listed) == 1 + answers.count(200)
    assert app.delete(f"/api/public/traces/{2:032x}").status_code == 200
    assert send(9, 1000) == 200


@pytest.mark.parametrize("path", ["/api/public/scores", "/api/public/ingestion"])
def test_large_body_is_refused(app: TestClient, path: str) -> None:
    """A body beyond the limit is a 413 that says the limit, whatever length it announces."""
    answer = app.post(path, content=(b" " * MAX_JSON_BYTES, b"{}"))  # type: ignore[arg-type]  # an iterable
    assert answer.status_code == 413
    assert "16,777,216 bytes" in answer.json()["message"]


def test_small_body_that_unpacks_to_a_large_one_is_refused(app: TestClient) -> None:
    """What a compressed body unpacks to is limited too."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    packed = gzip.compress(b" " * (129 * 1024 * 1024), compresslevel=1)
    assert app.post(TRACES, content=packed, headers=headers).status_code == 413

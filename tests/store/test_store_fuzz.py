"""Requests that nobody would send: the store refuses them, and never fails."""

from __future__ import annotations

import base64
import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from research_kit.store.app import build_app
from research_kit.store.context import Store
from research_kit.store.database import Database
from research_kit.store.openapi import describe_api
from research_kit.store.state import Credentials
from research_kit.store.word_search import has_words

KEYS = Credentials(public_key="pk-lf-fuzz", secret_key="sk-lf-fuzz", project_id="local-fuzz")
AUTHORIZATION = f"Basic {base64.b64encode(b'pk-lf-fuzz:sk-lf-fuzz').decode()}"
RECORDED = Path(__file__).parents[1] / "contract" / "data" / "ingest"
TRACES = "/api/public/otel/v1/traces"


@pytest.fixture(scope="module")
def app_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = tmp_path_factory.mktemp("fuzz") / "store.db"
    database = Database(path, functions={"has_words": has_words})
    app = build_app(Store(database=database, credentials=KEYS, version="1", port=1))
    # What goes wrong inside becomes an answer, as it does for a real client.
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["authorization"] = AUTHORIZATION
        yield client
    database.close()


OPERATIONS = [(path, method) for path, methods in describe_api("1")["paths"].items() for method in methods]


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda value: value.rpartition("public/")[2])
def test_no_request_of_the_description_fails(app_of_module: TestClient, path: str, method: str) -> None:
    """Whatever the description allows, and much that it does not, is answered without a failure."""
    schema = schemathesis.openapi.from_dict(describe_api("1"))
    schema.app = app_of_module.app

    @given(case=schema[path][method].as_strategy())
    @settings(
        # Exports are deep, and making one takes long.
        max_examples=5 if "otel" in path else 20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url="http://127.0.0.1", headers={"authorization": AUTHORIZATION})
        assert answer.status_code < 500, answer.text

    ask()


def recorded_bodies() -> list[tuple[bytes, dict[str, str]]]:
    kinds = {".pb": "application/x-protobuf", ".json": "application/json"}
    found = []
    for path in sorted(RECORDED.iterdir()):
        content = path.read_bytes()
        is_packed = content[:2] == b"\x1f\x8b"
        content = gzip.decompress(content) if is_packed else content
        kind = next((kind for suffix, kind in kinds.items() if suffix in path.suffixes), kinds[".pb"])
        if path.name != "index.json" and 0 < len(content) < 20_000:
            found.append((content, {"content-type": kind}))
    return found


def test_broken_exports_are_answered(app_of_module: TestClient) -> None:
    """Exports with bytes changed, left out, doubled or cut off are taken or refused, never a failure."""
    chance, bodies = random.Random(3), recorded_bodies()
    assert len(bodies) > 10
    seen = set()
    for _ in range(600):
        content, headers = chance.choice(bodies)
        broken = bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(broken))
            match chance.randrange(4):
                case 0:
                    broken[place] = chance.randrange(256)
                case 1:
                    del broken[place : place + chance.randrange(1, 9)]
                case 2:
                    broken[place:place] = broken[place : place + 9]
                case _:
                    del broken[place + 1 :]
            broken = broken or bytearray(b"\x00")
        packed = chance.random() < 0.2
        body = gzip.compress(bytes(broken))[: -chance.randrange(1, 20)] if packed else bytes(broken)
        more = {"content-encoding": "gzip"} if packed else {}
        answer = app_of_module.post(TRACES, content=body, headers={**headers, **more})
        assert answer.status_code < 500, (answer.status_code, answer.text[:300], bytes(broken)[:200])
        seen.add(answer.status_code)
    assert {200, 400} <= seen


def test_description_is_served_with_the_key_only(app_of_module: TestClient) -> None:
    """The description names every endpoint, for those who have the key."""
    served = app_of_module.get("/api/public/openapi.json")
    assert served.status_code == 200
    assert served.json() == describe_api("1")
    without = app_of_module.get("/api/public/openapi.json", headers={"authorization": ""})
    assert without.status_code == 401

"""Where scripts send to: a stand-in that records, and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Observations
from recording_server import RecordingServer, recording_server
from scripts import Destination

from research_kit.store import ensure_running, stop_store


@pytest.fixture(scope="session")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts") / "data"


@pytest.fixture(scope="session")
def shared_store(shared_data_dir: Path) -> Iterator[Observations]:
    yield Observations(ensure_running(shared_data_dir))
    stop_store(shared_data_dir)


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with recording_server() as running:
        yield running


@pytest.fixture
def with_keys(server: RecordingServer) -> Destination:
    return Destination(session_id="recorded", server=server, environment=server.environment)


@pytest.fixture(params=["keys", "no keys"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """A server that the environment names, and a store."""
    if request.param == "keys":
        return request.getfixturevalue("with_keys")
    return Destination(
        session_id=tmp_path.name,
        store=request.getfixturevalue("shared_store"),
        environment={"RESEARCH_KIT_DATA_DIR": str(request.getfixturevalue("shared_data_dir"))},
    )

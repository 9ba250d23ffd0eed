"""The store and the scripted model of tests of conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_lm import ScriptedLM, running_lm

import research_kit as rk
from research_kit.store import StoreAddress, ensure_running, stop_store


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("engine") / "data"
    yield path
    stop_store(path)


@pytest.fixture
def store(data_dir: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreAddress]:
    """One store for all: the process has one Langfuse client, which keeps its first address."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    address = ensure_running(data_dir)
    rk.new_session()
    yield address
    # What were left would be delivered where the next test looks.
    assert rk.flush()
    rk.unbind()


@pytest.fixture
def server() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()

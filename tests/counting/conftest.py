"""A store whose sessions are looked at from every place that says a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import research_kit as rk
from research_kit.store import StoreAddress, ensure_running, stop_store


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("counting") / "data"
    yield path
    stop_store(path)


@pytest.fixture
def store(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreAddress]:
    """One store for all tests: the process has one Langfuse client, which keeps its first address."""
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    yield ensure_running(data_dir)
    assert rk.flush()
    rk.unbind()

"""A store that holds everything the recorded server held."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_kit.store import StoreAddress, ensure_running, stop_store

# With --import-mode=importlib the folder of a test is not importable by itself.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    """An empty store of this test module."""
    data_dir = tmp_path_factory.mktemp("contract")
    yield ensure_running(data_dir, idle_timeout_s=120)
    stop_store(data_dir)

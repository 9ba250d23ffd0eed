"""A running store, and small makers of exports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from research_kit.store import StoreAddress, ensure_running, stop_store

# With --import-mode=importlib the folder of a test is not importable by itself.
sys.path.insert(0, str(Path(__file__).parent))

from exports import export_of
from page_visits import opened_browser


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    """A store of this test module, which ends by itself should the test run be killed."""
    data_dir = tmp_path_factory.mktemp("store")
    yield ensure_running(data_dir, idle_timeout_s=120)
    stop_store(data_dir)


@pytest.fixture
def client(store: StoreAddress) -> Iterator[httpx.Client]:
    """A client with the right keys."""
    with httpx.Client(base_url=store.base_url, auth=(store.public_key, store.secret_key)) as made:
        yield made


@pytest.fixture
def browser(store: StoreAddress) -> Iterator[httpx.Client]:
    """What a browser sends: the host name of the installation, and the cookie once it was let in."""
    with opened_browser(store) as made:
        yield made


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store of one test; whatever was started there is stopped."""
    folder = tmp_path / "data"
    yield folder
    if folder.is_dir():
        stop_store(folder)


@pytest.fixture
def send(client: httpx.Client) -> Callable[..., httpx.Response]:
    """Send spans to the store in one export."""

    def send_spans(*spans: dict[str, Any], scope: str = "langfuse-sdk") -> httpx.Response:
        return client.post("/api/public/otel/v1/traces", json=export_of(*spans, scope=scope))

    return send_spans

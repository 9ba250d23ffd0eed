"""Damaged databases: kept aside, and what can be read is saved."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from exports import export_of, make_span

from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.store.maintenance import backup_store, vacuum_store

SPAN_COUNT = 600


def post_spans(address: StoreAddress, first: int, count: int) -> None:
    text = "much to say " * 60
    spans = [
        make_span(n, trace=n // 10 + 1, langfuse__observation__input=f"{n} {text}")
        for n in range(first, first + count)
    ]
    auth = (address.public_key, address.secret_key)
    url = f"{address.base_url}/api/public/otel/v1/traces"
    httpx.post(url, json=export_of(*spans), auth=auth, timeout=30).raise_for_status()


def inputs(address: StoreAddress) -> set[str]:
    """Return the numbers that the readable inputs begin with."""
    params = {"fields": "core,io", "limit": "1000"}
    auth = (address.public_key, address.secret_key)
    url = f"{address.base_url}/api/public/v2/observations"
    rows = httpx.get(url, params=params, auth=auth, timeout=30).raise_for_status().json()["data"]
    return {row["input"].split()[0] for row in rows}


@pytest.fixture
def database(data_dir: Path) -> Path:
    """The database of a stopped store with observations."""
    post_spans(ensure_running(data_dir), 0, SPAN_COUNT)
    stop_store(data_dir)
    path = data_dir / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def overwrite_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 3 * 4096)


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database, not at all")


def overwrite_all(path: Path) -> None:
    path.write_bytes(b"\x00garbage" * 1000)


@pytest.mark.parametrize(
    ("damage", "least_count"),
    [
        (overwrite_middle, SPAN_COUNT * 8 // 10),
        (cut_off, SPAN_COUNT // 10),
        (overwrite_header, SPAN_COUNT),
        (overwrite_all, 0),
    ],
)
def test_damaged_database_is_kept_and_read(
    data_dir: Path, database: Path, damage: Callable[[Path], None], least_count: int
) -> None:
    """The server starts with what could be read, goes on, and the damaged file is kept as it is."""
    damage(database)
    (data_dir / "store-server.json").unlink()
    damaged_bytes = database.read_bytes()
    address = ensure_running(data_dir)
    found = inputs(address)
    assert len(found) >= least_count
    assert found <= {str(number) for number in range(SPAN_COUNT)}
    post_spans(address, SPAN_COUNT, 1)
    assert str(SPAN_COUNT) in inputs(address)
    [kept] = [
        path for path in data_dir.glob("store.db.damaged-*") if path.suffix[-4:] not in ("-wal", "-shm")
    ]
    assert kept.read_bytes() == damaged_bytes
    log = (data_dir / "store.log").read_text()
    assert "is damaged (" in log
    assert f"Saved from {kept}: {len(found)} observations, 0 scores." in log


def test_empty_file_is_a_new_store(data_dir: Path, database: Path) -> None:
    """A file without content is no damage."""
    database.write_bytes(b"")
    assert inputs(ensure_running(data_dir)) == set()
    assert not list(data_dir.glob("*.damaged-*"))


def test_killed_server_loses_nothing(data_dir: Path) -> None:
    """What was accepted before a SIGKILL is there afterwards, and nothing is taken for damage."""
    address = ensure_running(data_dir)
    post_spans(address, 0, 200)
    os.kill(address.pid, signal.SIGKILL)
    again = ensure_running(data_dir)
    assert again.pid != address.pid
    assert len(inputs(again)) == 200
    assert not list(data_dir.glob("*.damaged-*"))


def test_backup_of_a_running_store_is_a_store(data_dir: Path, tmp_path: Path) -> None:
    """A copy taken while the server runs opens as a store of its own, private to its owner."""
    post_spans(ensure_running(data_dir), 0, 50)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    copy = backup_store(data_dir, other / "store.db")
    assert copy.stat().st_mode & 0o777 == 0o600
    try:
        assert len(inputs(ensure_running(other))) == 50
    finally:
        stop_store(other)


def test_vacuum_gives_space_back_while_the_server_runs(data_dir: Path) -> None:
    """After deleting and compacting the file is smaller, and the server goes on."""
    address = ensure_running(data_dir)
    post_spans(address, 0, SPAN_COUNT)
    trace_ids = [f"{number + 1:032x}" for number in range(SPAN_COUNT // 10 - 1)]
    auth = (address.public_key, address.secret_key)
    url = f"{address.base_url}/api/public/traces"
    httpx.request("DELETE", url, json={"traceIds": trace_ids}, auth=auth).raise_for_status()
    vacuum_store(data_dir)
    path = data_dir / "store.db"
    assert path.stat().st_size < 300_000
    assert len(inputs(address)) == 10
    post_spans(address, SPAN_COUNT, 1)
    assert len(inputs(address)) == 11

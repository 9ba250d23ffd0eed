"""The life of the server process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from research_kit.errors import ConfigError, StoreError
from research_kit.store import StoreAddress, ensure_running, get_store_status, stop_store

_START = """
import sys
from pathlib import Path
from research_kit.store import ensure_running
address = ensure_running(Path(sys.argv[1]), idle_timeout_s=120)
print(address.base_url, address.pid, address.secret_key, flush=True)
"""

_START_A_HUNDRED = """
import os, sys
from pathlib import Path
from research_kit.store import ensure_running
ready, go = os.pipe()
children = []
for _ in range(100):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(ready, 1)  # until the parent closes its end
        address = ensure_running(Path(sys.argv[1]), timeout_s=60, idle_timeout_s=120)
        os.write(1, f"{address.base_url} {address.pid}\\n".encode())
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def _wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s: {what}"
        threading.Event().wait(0.02)


def _is_alive(address: StoreAddress) -> bool:
    try:
        return httpx.get(f"{address.base_url}/api/public/health").status_code == 200
    except httpx.TransportError:
        return False


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_import_loads_no_server_library() -> None:
    """Importing the store loads neither web server nor protobuf, since every kernel does it."""
    code = "import sys, research_kit.store; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"starlette", "uvicorn", "google", "opentelemetry", "httpx", "pydantic", "sqlite3", "filelock"}
    assert not heavy & set(loaded)


def test_many_processes_and_threads_share_one_server(data_dir: Path) -> None:
    """However many kernels ask at the same time, one server is started and all get the same address."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _START, str(data_dir)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(4) as pool:
        addresses = list(pool.map(lambda _: ensure_running(data_dir, idle_timeout_s=120), range(4)))
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(set(addresses)) == 1
    assert answers == {f"{addresses[0].base_url} {addresses[0].pid} {addresses[0].secret_key}"}


def test_a_hundred_kernels_start_one_server(data_dir: Path) -> None:
    """A class that runs its notebooks at the same moment has one server."""
    command = [sys.executable, "-c", _START_A_HUNDRED, str(data_dir)]
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(answers) == 100
    assert set(answers) == {f"{get_store_status(data_dir).base_url} {get_store_status(data_dir).pid}"}


def test_server_survives_the_process_that_started_it(data_dir: Path) -> None:
    """A kernel that is killed with its whole process group leaves the server running."""
    code = f"{_START}\nimport signal; signal.pause()"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    first_line = starter.stdout.readline().split()
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait(timeout=10)
    starter.stdout.close()
    assert get_store_status(data_dir).pid == int(first_line[1])


def test_restarted_store_keeps_port_keys_and_project(data_dir: Path) -> None:
    """Links and keys stay valid when the store was stopped and started again."""
    first = ensure_running(data_dir, idle_timeout_s=120)
    assert stop_store(data_dir) is True
    assert not _is_alive(first)
    # It ended in order: the next start need not check the whole file.
    assert json.loads((data_dir / "store-server.json").read_text())["is_stopped"] is True
    assert not (data_dir / "store.db-wal").exists()
    assert (data_dir / "store.log").read_text().rstrip().endswith("Ended.")
    second = ensure_running(data_dir, idle_timeout_s=120)
    assert (second.base_url, second.public_key, second.secret_key, second.project_id) == (
        first.base_url,
        first.public_key,
        first.secret_key,
        first.project_id,
    )
    assert second.pid != first.pid


def test_killed_server_is_replaced(data_dir: Path) -> None:
    """A note of a server that was killed does not keep the next one from starting."""
    first = ensure_running(data_dir, idle_timeout_s=120)
    os.kill(first.pid, signal.SIGKILL)
    _wait_until(lambda: not _is_alive(first), "the killed server is gone")
    assert get_store_status(data_dir).is_running is False
    assert stop_store(data_dir) is False
    assert ensure_running(data_dir, idle_timeout_s=120).pid != first.pid


def test_port_taken_by_somebody_else_is_left_alone(data_dir: Path) -> None:
    """When another program listens on the last port, the store starts on a free one."""
    first = ensure_running(data_dir, idle_timeout_s=120)
    stop_store(data_dir)
    with socket.create_server(("127.0.0.1", int(first.base_url.rpartition(":")[2]))):
        second = ensure_running(data_dir, idle_timeout_s=120)
    assert second.base_url != first.base_url
    assert _is_alive(second)


def test_stranger_on_the_noted_port_is_not_taken_for_the_store(data_dir: Path) -> None:
    """A server that answers on the noted port without knowing our keys is not used."""
    ensure_running(data_dir, idle_timeout_s=120)
    stop_store(data_dir)
    stranger = ensure_running(data_dir.with_name("other"), idle_timeout_s=120)
    note = {"pid": stranger.pid, "port": int(stranger.base_url.rpartition(":")[2]), "version": "0"}
    (data_dir / "store-server.json").write_text(json.dumps(note))
    try:
        assert ensure_running(data_dir, idle_timeout_s=120).base_url != stranger.base_url
        assert _is_alive(stranger)
    finally:
        stop_store(data_dir.with_name("other"))


@pytest.mark.parametrize("content", ["{", '{"pid": "x"}', '{"pid": 1, "port": 99999999, "version": "1"}'])
def test_damaged_note_is_ignored(data_dir: Path, content: str) -> None:
    """The note about the running server only saves work; a damaged one is replaced."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "store-server.json").write_text(content)
    assert _is_alive(ensure_running(data_dir, idle_timeout_s=120))


def test_lost_note_is_written_again(data_dir: Path) -> None:
    """A running server whose note was deleted is found again instead of being started twice."""
    first = ensure_running(data_dir, idle_timeout_s=120)
    (data_dir / "store-server.json").unlink()
    assert ensure_running(data_dir) == first


def test_keys_are_private(data_dir: Path) -> None:
    """Key file, note and database can be read by their owner only."""
    ensure_running(data_dir, idle_timeout_s=120)
    for name in (
        "store-keys.json",
        "store-server.json",
        "store.db",
        "store.log",
        "store-start.lock",
        "store.sock",
    ):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600, name


def test_idle_server_ends(data_dir: Path, monkeypatch) -> None:
    """A server that was started with an idle time-out ends by itself."""
    monkeypatch.setenv("RESEARCH_KIT_STORE_IDLE_MINUTES", "0.003")
    address = ensure_running(data_dir)
    # Asking the server would keep it awake, so its process is watched instead.
    _wait_until(lambda: not _is_process(address.pid), "the idle server is gone")
    assert not get_store_status(data_dir).is_running


def test_server_ends_when_its_folder_is_deleted(data_dir: Path) -> None:
    """Nobody can find a server without its folder, so it does not stay."""
    address = ensure_running(data_dir, idle_timeout_s=120)
    for path in data_dir.iterdir():
        path.unlink()
    data_dir.rmdir()
    _wait_until(lambda: not _is_alive(address), "the server without a folder is gone")


def test_status_starts_and_creates_nothing(data_dir: Path) -> None:
    """Asking for the status of a store that was never started leaves no trace."""
    status = get_store_status(data_dir)
    assert (status.is_running, status.base_url, status.public_key, status.pid) == (False, None, None, None)
    assert not data_dir.exists()
    assert stop_store(data_dir) is False


def test_status_of_a_running_store(data_dir: Path) -> None:
    """The status names address, keys, process, file and the number of observations."""
    address = ensure_running(data_dir, idle_timeout_s=120)
    status = get_store_status(data_dir)
    assert (status.is_running, status.base_url, status.pid) == (True, address.base_url, address.pid)
    assert (status.path, status.observation_count) == (data_dir / "store.db", 0)


def test_file_instead_of_folder_is_a_clear_error(tmp_path: Path) -> None:
    """A data directory that is a file is refused with value, cause and remedy."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"Cannot use '.*file' .*RESEARCH_KIT_DATA_DIR"):
        ensure_running(path)


def test_damaged_key_file_is_a_clear_error(data_dir: Path) -> None:
    """Keys are never replaced silently: links and clients depend on them."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "store-keys.json").write_text("{")
    with pytest.raises(StoreError, match=r"store-keys\.json.*Restore the file"):
        ensure_running(data_dir)


def test_database_of_a_newer_version_is_a_clear_error(data_dir: Path) -> None:
    """When the server cannot start, the error says why, from its log; the database is not touched."""
    data_dir.mkdir(mode=0o700)
    with closing(sqlite3.connect(data_dir / "store.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"has schema 99.*Upgrade research-kit"):
        ensure_running(data_dir)


def test_newer_version_replaces_an_older_server(data_dir: Path) -> None:
    """After an upgrade the next kernel gets a server of its own version, with what the old one had."""
    address = ensure_running(data_dir, idle_timeout_s=120)
    note = data_dir / "store-server.json"

    def is_replaced() -> bool:
        # The server writes its note anew when somebody has changed it, so one attempt may come too late.
        content = json.loads(note.read_text())
        if content["pid"] == address.pid:
            note.write_text(json.dumps({**content, "version": "0.0.9"}))
        return ensure_running(data_dir, idle_timeout_s=120).pid != address.pid

    _wait_until(is_replaced, "the older server is still there")
    assert get_store_status(data_dir).project_id == address.project_id


def test_newer_server_is_left_alone(data_dir: Path) -> None:
    """A kernel with an older version goes on with the server that runs."""
    address = ensure_running(data_dir, idle_timeout_s=120)
    note = data_dir / "store-server.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "version": "99.0.0"}))
    assert ensure_running(data_dir, idle_timeout_s=120).pid == address.pid

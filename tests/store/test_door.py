"""The server behind the tile of JupyterLab's launcher; the tile itself is clicked in tests/browser."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from research_kit.store import get_store_status, stop_store
from research_kit.store.door import server_proxy_entry


@contextmanager
def running_door(folder: Path, data_dir: Path) -> Iterator[Path]:
    place = folder / "door"
    command = [part.format(unix_socket=place) for part in server_proxy_entry()["command"]]
    environ = {**os.environ, "RESEARCH_KIT_DATA_DIR": str(data_dir)}
    with subprocess.Popen(command, env=environ, cwd=folder) as process:
        try:
            deadline = time.monotonic() + 30
            while not place.exists():
                assert time.monotonic() < deadline, "the door did not open"
                time.sleep(0.05)
            yield place
        finally:
            process.terminate()


def ask(place: Path, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(place))
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_door_starts_the_store_and_leads_to_it(tmp_path: Path) -> None:
    """The way is relative to where the browser came in, and is not kept."""
    with running_door(tmp_path, tmp_path / "data") as place:
        answer = ask(place, "/one/two?from=/a/b")
    status = get_store_status(tmp_path / "data")
    stop_store(tmp_path / "data")
    assert status.is_running
    port = str(status.base_url).rpartition(":")[2]
    assert answer.startswith("HTTP/1.0 302")
    assert re.search(rf"^Location: \.\./\.\./proxy/{port}/\?token=\S+\r$", answer, re.M)
    assert "Cache-Control: no-store" in answer


def test_door_says_why_there_is_no_store(tmp_path: Path) -> None:
    """A store that cannot be started is told to the browser, and the next request is answered again."""
    (tmp_path / "data").write_text("no folder")
    with running_door(tmp_path, tmp_path / "data") as place:
        for _ in range(2):
            answer = ask(place, "/")
            assert answer.startswith("HTTP/1.0 503")
            assert str(tmp_path / "data") in answer

"""Starting, finding and stopping the server process.

Owns the life of the process; does not know what it serves. Invariant: one server per data directory,
however many kernels ask for it at the same time, and it outlives all of them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit._optional import DISTRIBUTION
from research_kit.errors import StoreError
from research_kit.private import open_private
from research_kit.store.address import StoreAddress, StoreStatus, moved_notice
from research_kit.store.reaching import ask_store
from research_kit.store.state import (
    Credentials,
    Listening,
    StorePaths,
    existing_paths,
    load_or_create_credentials,
    open_data_dir,
    read_credentials,
    read_listening,
)

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["ensure_running", "get_store_status", "stop_store"]

_STOP_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.02
_LOG_TAIL_BYTES = 2000
_MAX_LOG_BYTES = 1_000_000


def ensure_running(
    data_dir: Path, *, timeout_s: float = 20.0, idle_timeout_s: float | None = None
) -> StoreAddress:
    """Return the address of the store in ``data_dir``, starting its server when none is running.

    Args:
        data_dir: The folder of the store; it is created when missing.
        timeout_s: How long to wait for a server that has to start, in seconds.
        idle_timeout_s: A server that is started by this call ends after so many seconds without a request;
            None lets ``RESEARCH_KIT_STORE_IDLE_MINUTES`` decide, or lets it run until it is stopped.

    Raises:
        ConfigError: When the folder cannot be used.
        StoreError: When no server could be started or reached.
    """
    paths = open_data_dir(data_dir)
    address = _find_running(paths)
    if address is not None and not _is_outdated(paths):
        return address
    deadline = time.monotonic() + timeout_s
    with _acquired(paths.start_lock, timeout_s, paths):
        if _is_outdated(paths) or read_credentials(paths) is None:
            # What clients send meanwhile waits in their spools. A server of lost keys takes nothing from us.
            stop_store(data_dir)
        return _find_running(paths) or _start(paths, deadline, idle_timeout_s)


def stop_store(data_dir: Path) -> bool:
    """Stop the server of ``data_dir``; True when one was running.

    Raises:
        ConfigError: When the folder cannot be used.
        StoreError: When it does not end in 10 seconds.
    """
    paths = existing_paths(data_dir)
    listening = read_listening(paths)
    if listening is None or listening.is_stopped or not _is_server_alive(paths):
        return False
    # The server lock is held, so the process id in the note belongs to the server and to nobody else.
    os.kill(listening.pid, signal.SIGTERM)
    if _wait_until(lambda: not _is_server_alive(paths), _STOP_TIMEOUT_S):
        return True
    raise StoreError(
        f"The store's server (process {listening.pid}) did not end within {_STOP_TIMEOUT_S:g} s. "
        f"End it with: kill -9 {listening.pid}"
    )


def get_store_status(data_dir: Path) -> StoreStatus:
    """Describe the store of ``data_dir`` without starting or creating anything.

    Raises:
        ConfigError: When the folder cannot be used.
    """
    paths = existing_paths(data_dir)
    credentials, listening = read_credentials(paths), read_listening(paths)
    answer = _ask(credentials, listening, "/internal/status?count=true")
    running = listening if answer is not None else None
    return StoreStatus(
        is_running=running is not None,
        base_url=running.base_url if running else None,
        public_key=credentials.public_key if credentials else None,
        secret_key=credentials.secret_key if credentials else None,
        project_id=credentials.project_id if credentials else None,
        pid=running.pid if running else None,
        path=paths.database,
        version=running.version if running else None,
        observation_count=None if answer is None else int(str(answer["observationCount"])),
        notice=moved_notice(running.former_port) if running else "",
    )


def _is_outdated(paths: StorePaths) -> bool:
    """Whether the running server is of an earlier version than this one, which may change the database."""
    listening = read_listening(paths)
    return listening is not None and not listening.is_stopped and _release(listening.version) < _own_release()


@cache
def _own_release() -> tuple[int, ...]:
    # Asked with each delivery, and read from a file.
    return _release(version(DISTRIBUTION))


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _find_running(paths: StorePaths) -> StoreAddress | None:
    credentials, listening = read_credentials(paths), read_listening(paths)
    if credentials is None or listening is None or _ask(credentials, listening) is None:
        return None
    return _address(credentials, listening)


def _ask(
    credentials: Credentials | None, listening: Listening | None, path: str = "/internal/status"
) -> dict[str, object] | None:
    """Ask the server who it is; None when nobody answers, or somebody who does not know our keys."""
    if credentials is None or listening is None or listening.is_stopped:
        return None
    answer = ask_store(_address(credentials, listening), path)
    is_ours = answer is not None and answer.get("projectId") == credentials.project_id
    return answer if is_ours else None


def _start(paths: StorePaths, deadline: float, idle_timeout_s: float | None) -> StoreAddress:
    credentials = load_or_create_credentials(paths)
    if _is_server_alive(paths):
        # Somebody else's start is under way, or the server is too busy to answer in time: wait for it.
        address = _await_address(paths, credentials, deadline, process=None)
        if address is not None:
            return address
        if _is_server_alive(paths):
            raise _not_started(paths, None)
        # It was about to end.
    process = _spawn(paths, idle_timeout_s)
    address = _await_address(paths, credentials, deadline, process=process)
    if address is None:
        raise _not_started(paths, process)
    return address


def _spawn(paths: StorePaths, idle_timeout_s: float | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "research_kit.store.server", "--data-dir", str(paths.data_dir)]
    if idle_timeout_s is not None:
        command += ["--idle-timeout-s", str(idle_timeout_s)]
    is_long = paths.log.exists() and paths.log.stat().st_size > _MAX_LOG_BYTES
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if is_long else os.O_APPEND)
    with os.fdopen(open_private(paths.log, flags), "wb") as log:
        # A session of its own keeps the signals of the kernel (interrupt, hang-up) away from the server.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=paths.data_dir,
            env=_server_environment(),
        )
    # Collects the exit status whenever the server ends, so that no zombie stays and nothing warns about it.
    threading.Thread(target=process.wait, name="research-kit-store-reaper", daemon=True).start()
    return process


def _server_environment() -> dict[str, str]:
    # PYTHONSAFEPATH: the server runs in the data directory, whose files must not be importable.
    package_root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, [package_root, inherited]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _await_address(
    paths: StorePaths, credentials: Credentials, deadline: float, process: subprocess.Popen[bytes] | None
) -> StoreAddress | None:
    """Wait until the server answers; None when it ends before, or the time is over."""
    found: list[Listening] = []

    def is_settled() -> bool:
        listening = read_listening(paths)
        is_expected = listening is not None and (process is None or listening.pid == process.pid)
        if listening is not None and is_expected and _ask(credentials, listening) is not None:
            found.append(listening)
            return True
        return not _is_server_alive(paths) if process is None else process.poll() is not None

    _wait_until(is_settled, max(0.0, deadline - time.monotonic()))
    return _address(credentials, found[-1]) if found else None


def _not_started(paths: StorePaths, process: subprocess.Popen[bytes] | None) -> StoreError:
    exit_code = process.poll() if process is not None else None
    if process is None:
        cause = "a server process holds it, but does not answer"
        remedy = "Stop that one with: research-kit store stop"
    elif exit_code is None:
        cause = "its server did not answer in time"
        remedy = "Try again; the machine may be busy"
    else:
        cause = f"its server ended with exit code {exit_code}"
        remedy = "Correct what the last lines of its log say"
    return StoreError(
        f"Cannot start the store in {str(paths.data_dir)!r}: {cause}. {remedy}. "
        f"The log is {str(paths.log)!r} and ends with: {_log_tail(paths)}"
    )


def _log_tail(paths: StorePaths) -> str:
    try:
        text = paths.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return "(no log)"
    return " | ".join(text.splitlines()[-3:]) or "(empty)"


def _address(credentials: Credentials, listening: Listening) -> StoreAddress:
    return StoreAddress(
        base_url=listening.base_url,
        public_key=credentials.public_key,
        secret_key=credentials.secret_key,
        project_id=credentials.project_id,
        pid=listening.pid,
        socket_path=None if listening.socket_path is None else Path(listening.socket_path),
        former_port=listening.former_port,
    )


def _is_server_alive(paths: StorePaths) -> bool:
    if not paths.server_lock.exists():
        return False
    from filelock import FileLock, Timeout

    lock = FileLock(paths.server_lock, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _acquired(path: Path, timeout_s: float, paths: StorePaths) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=timeout_s, poll_interval=_POLL_INTERVAL_S)
    except Timeout as error:
        raise StoreError(
            f"Cannot start the store in {str(paths.data_dir)!r}: another process has been starting it for "
            f"{timeout_s:g} s. Try again, or delete {str(path)!r} when no such process exists."
        ) from error
    return lock


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL_S)
    return True

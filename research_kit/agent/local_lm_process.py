"""The process that runs the small local model, seen from the kernels that use it.

Owns starting, finding and stopping the server; does not speak to the model. Invariant: at most one server per
cache directory, started under a file lock, and every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from research_kit.config import Settings, private_directory
from research_kit.errors import LMNotFoundError

__all__ = [
    "MODEL_ALIAS",
    "LocalServer",
    "ensure_local_server",
    "is_still_running",
    "life_lock_of",
    "local_lm_directory",
    "lock_of",
    "read_state",
    "stop_local_server",
    "write_state",
]

MODEL_ALIAS = "gemma-3-270m"

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """A running server: where it listens, the key it asks for, and its process.

    Attributes:
        base_url: Address on the loopback interface, without a path.
        api_key: Random key, new with each start.
        pid: Process id of the server.
    """

    base_url: str
    api_key: str
    pid: int


def local_lm_directory(settings: Settings) -> Path:
    """Return the folder of the assembled model, the server's state and its log."""
    return settings.cache_dir / "local-lm"


def ensure_local_server(settings: Settings, *, timeout_s: float = _START_TIMEOUT_S) -> LocalServer:
    """Return the running server, starting it when there is none; safe from many processes.

    Raises:
        LMNotFoundError: When the server does not come up in time.
    """
    directory = private_directory(local_lm_directory(settings), purpose="the small local language model")
    deadline = time.monotonic() + timeout_s
    try:
        with lock_of(directory).acquire(timeout=timeout_s):
            running = read_state(directory)
            if running is not None and _is_serving(directory) and _answers(running):
                return running
            _state_path(directory).unlink(missing_ok=True)
            return _start(directory, deadline)
    except Timeout as error:
        raise LMNotFoundError(
            f"The small local language model could not be started: another process has been starting it for "
            f"{timeout_s:g} s. Its log is {_log_path(directory)}."
        ) from error


def is_still_running(server: LocalServer, settings: Settings) -> bool:
    """Return True when ``server`` has not gone away since it was found; costs no network access."""
    directory = local_lm_directory(settings)
    return read_state(directory) == server and _is_serving(directory)


def stop_local_server(directory: Path) -> bool:
    """Stop the server of ``directory``; return False when none was running."""
    running = read_state(directory)
    if running is None:
        return False
    _state_path(directory).unlink(missing_ok=True)
    # While the lock of its life is held, the process id is the server's.
    if not _is_serving(directory) or not _answers(running):
        return False
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _is_alive(running.pid) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return True


def lock_of(directory: Path) -> FileLock:
    """Return the lock under which the server of ``directory`` starts and ends."""
    return FileLock(directory / "server.lock", mode=0o600)


def life_lock_of(directory: Path) -> FileLock:
    """Return the lock that the server of ``directory`` holds for as long as it lives."""
    return FileLock(directory / "server-life.lock", mode=0o600)


def _is_serving(directory: Path) -> bool:
    """Whether the server lives; after a crash, who has its port must get neither its key nor a prompt."""
    if not (directory / "server-life.lock").exists():
        return False
    try:
        with life_lock_of(directory).acquire(timeout=0):
            return False
    except Timeout:
        return True


def read_state(directory: Path) -> LocalServer | None:
    """Return what the server wrote when it was ready; None when there is no usable state."""
    try:
        fields = json.loads(_state_path(directory).read_text(encoding="utf-8"))
        return LocalServer(
            base_url=str(fields["base_url"]), api_key=str(fields["api_key"]), pid=int(fields["pid"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(directory: Path, server: LocalServer) -> None:
    """Write the server's state whole or not at all, readable by its owner only."""
    temporary = directory / f"server-{server.pid}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(server), file)
    temporary.replace(_state_path(directory))


def _start(directory: Path, deadline: float) -> LocalServer:
    with _log_path(directory).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "research_kit.agent.local_lm_server", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while time.monotonic() < deadline:
        state = read_state(directory)
        if state is not None and state.pid == process.pid and _answers(state):
            return state
        if process.poll() is not None:
            raise LMNotFoundError(_failed(directory, f"its process ended with code {process.returncode}"))
        time.sleep(_POLL_S)
    process.kill()
    raise LMNotFoundError(_failed(directory, "it was not ready in time"))


def _answers(server: LocalServer) -> bool:
    """Return True when the server itself answers at its address, not a foreign program on the same port."""
    try:
        answer = httpx.get(
            f"{server.base_url}/v1/models",
            headers={"Authorization": f"Bearer {server.api_key}"},
            timeout=5.0,
            verify=False,  # there is nothing to verify, and certificates take longer than the answer
        )
        return answer.status_code == 200 and MODEL_ALIAS in answer.text
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _is_alive(pid: int) -> bool:
    try:
        waited, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        waited = 0
    if waited == pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _failed(directory: Path, cause: str) -> str:
    try:
        tail = _log_path(directory).read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
    except OSError:
        tail = ""
    ending = f" It ends with: {tail!r}" if tail else ""
    return (
        f"The small local language model did not start: {cause}. See its log {_log_path(directory)}.{ending}"
    )


def _state_path(directory: Path) -> Path:
    return directory / "server.json"


def _log_path(directory: Path) -> Path:
    return directory / "server.log"

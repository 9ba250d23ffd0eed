"""Real kernels whose server misbehaves on command, in front of a real store."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import IO, Any

import pytest
from kernels import DEADLINE_S, Kernel, Observations, end_kernel, start_kernel, text_of
from misbehaving_server import MisbehavingServer, running_server

from research_kit.store import ensure_running, stop_store

LOAD = """
%load_ext research_kit
import json, dataclasses, os, time
import research_kit as rk
def status_json():
    return json.dumps(dataclasses.asdict(rk.status()), default=str)
def work(count, name='work'):
    for _ in range(count):
        with rk.trace_span(name):
            pass
"""
# Two seconds are promised, on a machine that is not busy with other tests; one request that is waited for to
# its end takes four, and a second one is always tried.
EXIT_LIMIT_S = 8.0
# What a kernel writes to its own terminal, which is none of ours.
_KERNEL_LINES = (
    "frozen modules",
    "frozen_modules=off",
    "to python to disable",
    "PYDEVD_DISABLE",
    "Kernel is running over TCP",
)


@dataclass
class WatchedKernel(Kernel):
    """A kernel of which every output is kept, whichever cell it is shown in."""

    terminal: IO[str] = field(kw_only=True)
    shown: list[str] = field(default_factory=list)

    def run(self, code: str) -> str:
        self._execute(code)
        return "".join(self.shown)

    def begin(self, code: str) -> None:
        """Send a cell and do not wait for it."""
        self.client.execute(code, allow_stdin=False)

    def ask(self, expression: str) -> Any:
        """Evaluate an expression in the kernel without running a cell."""
        content = self._execute("", silent=True, user_expressions={"asked": expression})
        answer = content["user_expressions"]["asked"]
        assert answer["status"] == "ok", answer
        return ast.literal_eval(answer["data"]["text/plain"])

    def status(self) -> dict[str, Any]:
        return json.loads(self.ask("status_json()"))

    def wait_for_state(self, state: str) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            status = self.status()
            if status["state"] == state:
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)

    def load(self) -> str:
        """Load the extension, and return the session."""
        self.run(LOAD)
        return self.ask("rk.current_session_id()")

    def kill(self) -> None:
        """Kill it as the system would when memory runs out."""
        self.client.stop_channels()
        self.manager.provisioner.process.kill()
        self.manager.provisioner.process.wait()

    def exit_by_itself(self) -> int:
        """Ask it to end, and return its exit code; more than its exit may take is a failure."""
        process = self.manager.provisioner.process
        self.client.shutdown()
        deadline = time.monotonic() + EXIT_LIMIT_S
        while process.poll() is None:
            assert time.monotonic() < deadline, "the kernel did not end by itself"
            time.sleep(0.02)
        with suppress(Empty):  # what was shown after the last cell
            while True:
                self._keep(self.client.get_iopub_msg(timeout=0.2))
        return process.returncode

    def end(self) -> None:
        end_kernel(self)
        self.terminal.close()

    def assert_silent(self) -> None:
        """Nothing was shown in any cell, and nothing reached the terminal of the kernel."""
        assert (self.shown, self.terminal_lines()) == ([], [])

    def terminal_lines(self) -> list[str]:
        """Return what reached the terminal of the kernel and is not its own."""
        lines = [line for line in Path(self.terminal.name).read_text().splitlines() if line.strip()]
        return [line for line in lines if not any(known in line for known in _KERNEL_LINES)]

    def _execute(self, code: str, **options: Any) -> dict[str, Any]:
        message_id = self.client.execute(code, allow_stdin=False, **options)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            kind = message["header"]["msg_type"]
            self._keep(message)
            is_ours = message["parent_header"].get("msg_id") == message_id
            if is_ours and kind == "status" and message["content"]["execution_state"] == "idle":
                break
        content = self._reply(message_id)
        assert content["status"] == "ok", "\n".join(content.get("traceback", [])) or content
        return content

    def _keep(self, message: dict[str, Any]) -> None:
        if message["header"]["msg_type"] in ("stream", "display_data", "execute_result"):
            self.shown.append(text_of(message))

    def _reply(self, message_id: str) -> dict[str, Any]:
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == message_id:
                return reply["content"]


@dataclass(frozen=True)
class Place:
    """A server that can misbehave, the store behind it, and the environment that leads there."""

    server: MisbehavingServer
    store: Observations
    folder: Path
    environment: dict[str, str]

    def spool_files(self) -> list[Path]:
        return sorted((self.folder / "data" / "spool").glob("*/*.spool"))

    def names(self, session_id: str) -> list[str]:
        """Return the names of the session's observations, each as often as it arrived."""
        rows = self.store.read(sessionId=session_id)
        assert len({row["id"] for row in rows}) == len(rows)
        return [row["name"] for row in rows]

    def deliver(self, timeout_s: float = 20) -> str:
        """Run ``research-kit deliver`` and return what it said."""
        command = Path(sys.executable).with_name("research-kit")
        done = subprocess.run(
            [command, "deliver", "--timeout", str(timeout_s)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stderr == ""
        return done.stdout


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observations]:
    data_dir = tmp_path_factory.mktemp("faults") / "data"
    yield Observations(ensure_running(data_dir))
    stop_store(data_dir)


@pytest.fixture(scope="module")
def module_server(module_store: Observations) -> Iterator[MisbehavingServer]:
    with running_server(module_store.address.base_url) as server:
        yield server


@pytest.fixture(scope="module")
def new_place(module_store: Observations, module_server: MisbehavingServer) -> Callable[[Path], Place]:
    """Make an environment with a data folder of its own in the folder given."""

    def make(folder: Path) -> Place:
        environment = {
            "LANGFUSE_PUBLIC_KEY": module_store.address.public_key,
            "LANGFUSE_SECRET_KEY": module_store.address.secret_key,
            "LANGFUSE_BASE_URL": module_server.base_url,
            "RESEARCH_KIT_DATA_DIR": str(folder / "data"),
            "RESEARCH_KIT_STRICT_TELEMETRY": "true",
            "LANGFUSE_TIMEOUT": "4",
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
        }
        return Place(module_server, module_store, folder, environment)

    return make


@pytest.fixture
def place(tmp_path: Path, new_place: Callable[[Path], Place]) -> Place:
    """A data folder of its own, and the server healthy."""
    place = new_place(tmp_path)
    place.server.heal()
    return place


def start_watched_kernel(place: Place, number: int, environment: dict[str, str]) -> WatchedKernel:
    # It stays open, because a manager that restarts the kernel uses it again.
    terminal = (place.folder / f"terminal-{number}").open("w")
    variables = {**place.environment, **environment}
    kernel = start_kernel(variables, place.folder, stdout=terminal, stderr=terminal)
    return WatchedKernel(manager=kernel.manager, client=kernel.client, terminal=terminal)


@pytest.fixture
def new_kernel(place: Place) -> Iterator[Callable[..., WatchedKernel]]:
    """Start kernels that use the misbehaving server."""
    kernels: list[WatchedKernel] = []

    def start(**environment: str) -> WatchedKernel:
        kernels.append(start_watched_kernel(place, len(kernels), environment))
        return kernels[-1]

    yield start
    place.server.heal()
    for kernel in kernels:
        kernel.end()


@pytest.fixture(scope="module")
def module_kernel(
    tmp_path_factory: pytest.TempPathFactory, new_place: Callable[[Path], Place]
) -> Iterator[WatchedKernel]:
    """A kernel shared by a module's tests, which has been connected."""
    place = new_place(tmp_path_factory.mktemp("kernel"))
    place.server.heal()
    kernel = start_watched_kernel(place, 0, {})
    kernel.load()
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25) and rk.status().reason == ''")
    yield kernel
    place.server.heal()
    kernel.end()

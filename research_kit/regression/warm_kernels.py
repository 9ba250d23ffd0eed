"""Kernels that need not be waited for: forked from a process that has already imported what they need.

Owns the fork servers and the processes they made. Does not talk to kernels. Invariants: a kernel that cannot
be forked is started in the usual way, and after `WarmKernels.close` none of the processes is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

__all__ = ["WarmKernels", "find_imports"]

_START_TIMEOUT_S = 60.0
# A part of what the manager grants a kernel before it asks less politely.
_SHUTDOWN_WAIT_S = 1.0
# pytest changes it for every test; no library reads it.
_IGNORED_VARIABLES = ("PYTEST_CURRENT_TEST",)
# Imported ahead when notebooks import them: slow, common, and at ease with being forked.
_PRELOADABLE = ("matplotlib.pyplot", "numpy", "pandas", "scipy.stats", "tqdm.auto")
_IMPORT = re.compile(r"\b(?:import|from) +(\w+)")
_LAUNCHER = "ipykernel_launcher"
_SCRIPT = Path(__file__).with_name("fork_server.py")


class ForkedProcess:
    """A forked kernel, with the part of `subprocess.Popen` that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection
        # The fork server keeps the process until it is asked: until then the number is not given away.
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        if self.returncode is None and _is_readable(self._handle):
            self.returncode = self._ask_exit_code()
            os.close(self._handle)
            self._connection.close()
        return self.returncode

    def wait(self) -> int | None:
        """Return the exit code of a process that has ended."""
        return self.poll()

    async def async_wait(self) -> None:
        """Wait for the end of the process."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        if self.returncode is None:
            loop.add_reader(self._handle, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._handle)

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process alone."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, signum)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def _ask_exit_code(self) -> int:
        try:
            self._connection.send(b"?")
            return int(self._connection.recv(16) or -signal.SIGKILL)
        except OSError:
            return -signal.SIGKILL  # the fork server was killed, and its kernels with it


class ForkServer:
    """A process that has imported ``modules`` and forks kernels."""

    def __init__(self, python: Sequence[str], environ: Mapping[str, str], modules: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_START_TIMEOUT_S)
        with theirs:
            self._process = subprocess.Popen(
                [*python, str(_SCRIPT), str(theirs.fileno()), json.dumps(list(modules))],
                env=dict(environ),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def fork(self, request: Mapping[str, Any], handles: Sequence[int]) -> ForkedProcess:
        """Fork a process.

        Raises:
            OSError: When the server has ended or cannot fork.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_START_TIMEOUT_S)
        with theirs:
            message = json.dumps(request).encode()
            socket.send_fds(self._control, [message], [theirs.fileno(), *handles])
        answer = ours.recv(16)
        if not answer:
            ours.close()
            raise ConnectionError("the fork server has ended")
        return ForkedProcess(int(answer), ours)

    def close(self) -> None:
        """End the server, and the kernels that still run."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Found(NamedTuple):
    key: object
    server: ForkServer


class WarmProvisioner(LocalProvisioner):
    """jupyter_client's local provisioner, with processes that are forked where that is possible."""

    warm_kernels: WarmKernels

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork the kernel, or start it in the usual way when it cannot be forked."""
        process = await asyncio.to_thread(self.warm_kernels.fork, cmd, kwargs)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = process  # type: ignore[assignment]  # it has what is used of subprocess.Popen
        self.pid = self.pgid = process.pid
        self.cwd = kwargs["cwd"]
        return self.connection_info

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Wait here for a kernel that ends by itself: the manager would only look ten times a second."""
        if isinstance(self.process, ForkedProcess):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.async_wait(), _SHUTDOWN_WAIT_S)


class WarmKernels:
    """The fork servers of one test run, one per interpreter and environment.

    Args:
        modules: What notebooks are expected to import.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = tuple(modules)
        self._servers: dict[object, ForkServer | None] = {}
        # Notebooks may be run by several threads; a fork takes milliseconds.
        self._lock = threading.Lock()

    def start_ahead(self) -> None:
        """Start the server that most kernels come from: it imports while the caller does, too."""
        manager = KernelManager()
        # What is wrong is told by the run that needs it; jupyter-client 7 knows no command before that.
        with suppress(NoSuchKernel, OSError, TypeError), self._lock:
            if manager.kernel_spec is not None and not manager.kernel_spec.env:
                self._server_for(manager.format_kernel_cmd(), os.environ)

    def adopt(self, manager: KernelManager) -> None:
        """Let the kernel of ``manager`` be forked when it is an IPython kernel."""
        provisioner = WarmProvisioner(
            kernel_id=manager.kernel_id, kernel_spec=manager.kernel_spec, parent=manager
        )
        provisioner.warm_kernels = self
        manager.provisioner = provisioner

    def fork(self, command: list[str], options: Mapping[str, Any]) -> ForkedProcess | None:
        """Fork what ``subprocess.Popen(command, **options)`` would start; None when that cannot be done."""
        with self._lock:
            found = self._server_for(command, options["env"])
            if found is None:
                return None
            argv = command[command.index(_LAUNCHER) :]
            request = {"argv": argv, "environ": dict(options["env"]), "cwd": str(options["cwd"])}
            try:
                return found.server.fork(request, [options["stdout"].fileno(), options["stderr"].fileno()])
            except OSError:
                # Once is enough: a server that died of what it imported would die of it again.
                self._servers[found.key] = None
                found.server.close()
                return None

    def _server_for(self, command: list[str], variables: Mapping[str, str]) -> _Found | None:
        """Return the server of an interpreter and environment, started if need be; None when it cannot be."""
        if sys.platform != "linux" or _LAUNCHER not in command:
            return None
        environ = {name: value for name, value in variables.items() if name not in _IGNORED_VARIABLES}
        python = command[: command.index(_LAUNCHER) - 1]
        key = (tuple(python), tuple(sorted(environ.items())))
        if key not in self._servers:
            self._servers[key] = ForkServer(python, environ, self._modules)
        server = self._servers[key]
        return None if server is None else _Found(key, server)

    def close(self) -> None:
        """End all fork servers, and the kernels that still run."""
        for server in self._servers.values():
            if server is not None:
                with suppress(OSError):
                    server.close()
        self._servers.clear()


def find_imports(notebooks: Iterable[Path]) -> tuple[str, ...]:
    """Return the modules worth importing ahead that the text of ``notebooks`` imports."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in notebooks if path.is_file()]
    words = {word for text in texts for word in _IMPORT.findall(text)}
    return tuple(name for name in _PRELOADABLE if name.partition(".")[0] in words)


def _is_readable(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))

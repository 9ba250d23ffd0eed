"""A Python process that has imported what notebooks import, and becomes a kernel when it is asked to.

Runs as a script of its own: kernels must not find modules of research-kit imported that they did not ask for.
Owns the processes it forks until somebody has asked for their exit code. Invariant: no kernel outlives the
process that asked for it, and what one kernel does reaches no other.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# What every kernel imports; the debugger takes it longer than all else of its start.
_KERNEL_MODULES = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "sqlite3",
    "tornado.platform.asyncio",
)
_MESSAGE_BYTES = 1_000_000
_SLOW_FORMATS = Path(__file__).parents[1] / "_slow_formats.py"

has_ended = threading.Event()
"""Set in a kernel that has ended in order."""


def main() -> None:
    """Serve until the other side of the socket in ``argv`` is closed; in a forked process, be a kernel."""
    # The first to be registered runs last.
    atexit.register(leave)
    control = socket.socket(fileno=int(sys.argv[1]))
    preload(json.loads(sys.argv[2]))
    if threading.active_count() > 1:
        return  # a thread holds locks that a forked process would wait for without end
    kernel = serve(control)
    if kernel is not None:
        become(kernel)


def preload(modules: list[str]) -> None:
    """Import what kernels need, and ``modules``; one that is missing fails in the notebook that needs it."""
    # The folder of this script is no place that a notebook imports from.
    del sys.path[0]
    # dspy and others import what it defers; run, not imported: it is no module that a kernel asked for.
    runpy.run_path(str(_SLOW_FORMATS))["defer_slow_formats"]()
    # ipykernel reads both when it is imported; a kernel ends itself when the process named here is gone.
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in (*_KERNEL_MODULES, *modules):
        with suppress(ImportError):
            importlib.import_module(name)
    # What is shared now stays shared: the collector would write into every page.
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a process per request; return the request in that process, and None at the end of service."""
    kernels: dict[socket.socket, int] = {}
    while True:
        for ready in select.select([control, *kernels], [], [])[0]:
            if ready is not control:
                end_kernel(ready, kernels.pop(ready))
                continue
            message, handles, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
            if not message:
                for connection, pid in kernels.items():
                    end_kernel(connection, pid)
                return None
            connection = socket.socket(fileno=handles[0])
            pid = os.fork()
            if pid == 0:
                for inherited in (control, connection, *kernels):
                    inherited.close()
                return {**json.loads(message), "handles": handles[1:]}
            for handle in handles[1:]:
                os.close(handle)
            kernels[connection] = pid
            connection.send(str(pid).encode())


def end_kernel(connection: socket.socket, pid: int) -> None:
    """Tell the exit code of a process that has ended; end it when nobody is there to ask."""
    if not connection.recv(1):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(pid, signal.SIGKILL)  # it has not made its own group yet
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody is there
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    connection.close()


def become(kernel: dict[str, Any]) -> None:
    """Be the kernel: as if this process had been started with its arguments, environment and folder."""
    os.setsid()
    os.environ.clear()
    os.environ.update({**kernel["environ"], "JPY_PARENT_PID": str(os.getppid())})
    time.tzset()
    os.chdir(kernel["cwd"])
    with Path(os.devnull).open() as nothing:
        for number, handle in enumerate((nothing.fileno(), *kernel["handles"])):
            os.dup2(handle, number)
    for handle in kernel["handles"]:
        os.close(handle)
    if "numpy.random" in sys.modules:
        # Python itself draws new random numbers after a fork; numpy would repeat those of the last kernel.
        sys.modules["numpy.random"].seed()
    sys.argv = kernel["argv"]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    has_ended.set()


def leave() -> None:
    """End a kernel that was asked to end, when its threads have ended and its exit handlers have run.

    IPython has dropped the user's objects by then. Python would go on to take all modules apart, and copy for
    it every page of memory that is shared with the fork server.
    """
    if has_ended.is_set():
        gc.collect()
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

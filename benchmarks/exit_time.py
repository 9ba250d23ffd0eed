"""How long a process takes to end after its last line, per fault of the server, and what it prints."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.measuring import (
    KEYS,
    Options,
    ProcessRun,
    Row,
    median,
    null_server,
    run_interleaved,
    run_python,
)

_SPAN_COUNT = 20
_GOAL_EXIT_S = 2.0
# What the interpreter needs to end with research-kit's libraries loaded, after the deadline for delivery.
_INTERPRETER_S = 0.5
_PATHS = ("401", "403", "413", "429", "500", "503", "slow", "cut", "garbage")
# Up to 20 s each, nearly all of it waiting: these say enough of Langfuse's SDK.
_COMPARED = ("healthy", "refused", "blackholed", "401", "500", "503")


def measure(options: Options) -> list[Row]:
    """Return exit times and printed lines of research-kit, against Langfuse's SDK."""
    with null_server() as base_url, refusing_address() as refused, blackholed_address() as blackholed:
        faults = {
            "healthy": base_url,
            "refused": refused,
            "blackholed": blackholed,
            "unknown host": "http://langfuse.invalid",
            **{path: f"{base_url}/{path}" for path in _PATHS},
        }

        def run(way: tuple[str, str]) -> ProcessRun:
            worker, fault = way
            environment = options.environment(
                f"exit-{worker}-{fault}", **KEYS, LANGFUSE_BASE_URL=faults[fault]
            )
            arguments = ["-m", "benchmarks.span_worker", worker, str(_SPAN_COUNT), "1"]
            return run_python(arguments, environment, options.folder)

        ours = run_interleaved(
            [("research-kit", fault) for fault in faults], min(options.repeat_count, 3), run
        )
        theirs = run_interleaved([("sdk", fault) for fault in _COMPARED], 1, run)
    return [
        row
        for fault in faults
        for row in _rows(fault, ours["research-kit", fault], theirs.get(("sdk", fault), []))
    ]


def _rows(fault: str, ours: list[ProcessRun], theirs: list[ProcessRun]) -> list[Row]:
    exit_s, printed = median(run.exit_s for run in ours), max(run.printed_lines for run in ours)
    exit_row = Row(name=f"exit, {fault}", value=exit_s, unit="s", goal=_GOAL_EXIT_S + _INTERPRETER_S)
    printed_row = Row(name=f"lines printed, {fault}", value=printed, unit="lines", goal=0)
    if not theirs:
        return [exit_row, printed_row]
    [sdk] = theirs
    against = f"Langfuse SDK, {sdk.exit_s:.2f} s"
    return [
        replace(exit_row, against=against, ratio=exit_s / sdk.exit_s),
        replace(printed_row, against=f"Langfuse SDK, {sdk.printed_lines} lines"),
    ]


@contextmanager
def refusing_address() -> Iterator[str]:
    """Yield an address at which nobody listens."""
    with socket.socket() as owner:
        # Bound and not listening: refused, and nobody else can take the port meanwhile.
        owner.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{owner.getsockname()[1]}"


@contextmanager
def blackholed_address() -> Iterator[str]:
    """Yield an address that answers nothing, not even a connection attempt."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # The kernel drops attempts while the queue of connections that nobody accepted is full.
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

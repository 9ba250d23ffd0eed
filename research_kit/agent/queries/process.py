"""The process that runs SQL, seen from the kernel.

Owns starting, asking and ending it; knows no SQL. Invariants: at most one per kernel; whatever a statement
does, the caller goes on after the deadline, the kernel's own memory does not grow, and the next statement
is run; and no such process outlives its kernel.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from research_kit.agent.queries.answers import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Limits", "QueryCall", "Session"]

_PROGRAM = Path(__file__).with_name("child.py")
# What Python needs to find its packages, and words to be in the user's language and time; no secrets.
_ENVIRONMENT = (
    "CONDA_PREFIX", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH",
    "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "USERPROFILE", "VIRTUAL_ENV",
)  # fmt: skip
_START_TIMEOUT_S = 60.0
_POLL_S = 0.05
# Beside the tables and the memory of a statement: Python, DuckDB and Arrow themselves.
_PROGRAM_BYTES = 500_000_000
_MAX_ANSWER_BYTES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may use.

    Attributes:
        time_s: Seconds from the start of its first statement, not counting the wait for another call.
        memory_bytes: Memory beside the tables it is given.
        input_bytes: Size of these tables.
    """

    time_s: float = 20.0
    memory_bytes: int = 2_000_000_000
    input_bytes: int = 4_000_000_000


class QueryCall:
    """One call of a tool, which may be cancelled from any thread.

    Args:
        limits: What it may use.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.is_cancelled = False

    def cancel(self) -> None:
        """End the statement that runs, and run no more."""
        self.is_cancelled = True

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session as soon as no other call has one.

        Raises:
            QueryError: When a statement fails, or uses more than the limits; the message says which.
        """
        with _holder.turn(self) as process:
            session = Session(process, self)
            with session.watched():
                yield session


class Session:
    """The tables and statements of one call."""

    def __init__(self, process: _Process, call: QueryCall) -> None:
        self._process = process
        self._call = call
        self._given_bytes = 0
        self._end_reason = ""
        self._is_over = threading.Event()

    def load(self, name: str, table: pa.Table) -> None:
        """Hand over a table.

        Raises:
            QueryError: When it is too large.
        """
        limit = self._call.limits.input_bytes
        self._given_bytes += table.nbytes
        if self._given_bytes > limit:
            raise QueryError(
                f"the columns that it needs hold {_gigabytes(self._given_bytes)}, and at most "
                f"{_gigabytes(limit)} are looked at. Ask for fewer columns."
            )
        with self._explained():
            self._process.send({"do": "load", "name": name, "size": table.nbytes}, table)
            answer = self._process.receive()
        if "error" in answer:
            # Part of the table may be left in the pipe.
            self._process.end()
        self._checked(answer)

    def parse(self, sql: str) -> dict[str, Any]:
        """Return what a statement is made of, as DuckDB says it.

        Raises:
            QueryError: When it is no single SELECT.
        """
        with self._explained():
            self._process.send({"do": "parse", "sql": sql})
            tree: dict[str, Any] = self._checked(self._process.receive())["tree"]
        return tree

    def run(self, sql: str, parameters: Mapping[str, Any], *, row_count: int = 200_000) -> list[list[Any]]:
        """Return the first rows of a result."""
        rows: list[list[Any]] = self.run_named(sql, parameters, row_count=row_count)["rows"]
        return rows

    def run_named(self, sql: str, parameters: Mapping[str, Any], *, row_count: int) -> dict[str, Any]:
        """Return the first ``rows`` of a result, and its ``columns``.

        Raises:
            QueryError: When the statement fails, or uses more than the limits.
        """
        request = {"do": "run", "sql": sql, "parameters": dict(parameters), "row_count": row_count}
        with self._explained():
            self._process.send(request)
            return self._checked(self._process.receive())

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """End the process when the call goes beyond its limits, or anything goes wrong."""
        watch = threading.Thread(target=self._watch, name="research-kit-query-watch", daemon=True)
        watch.start()
        try:
            yield
        except QueryError:
            raise
        except BaseException:
            # An answer may be left in the pipe.
            self._process.end()
            raise
        finally:
            if not self._process.answers():
                self._process.end()
            self._is_over.set()
            watch.join()

    def _watch(self) -> None:
        limits = self._call.limits
        deadline = time.monotonic() + limits.time_s
        while not self._is_over.wait(_POLL_S):
            if self._call.is_cancelled:
                self._end_reason = "it was cancelled."
            elif time.monotonic() > deadline:
                self._end_reason = f"it takes longer than {limits.time_s:g} s. Ask for less."
            elif self._process.memory_bytes() > limits.memory_bytes + self._given_bytes + _PROGRAM_BYTES:
                self._end_reason = _too_much(limits)
            if self._end_reason:
                self._process.end()
                return

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer.get("is_memory"):
            raise QueryError(_too_much(self._call.limits))
        if "error" in answer:
            raise QueryError(str(answer["error"]))
        return answer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say why the process has gone."""
        try:
            yield
        except (OSError, EOFError) as error:
            self._process.end()
            raise QueryError(self._end_reason or _died(self._call.limits)) from error


class _Process:
    """A running child."""

    def __init__(self, memory_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), str(os.getpid()), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            # Arrow's own pools reserve more than they use.
            | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
            # An interrupt of the kernel is for the user's cell.
            start_new_session=True,
        )
        self.memory_limit_bytes = memory_bytes

    def answers(self) -> bool:
        """Return True when it is still there: anybody may have killed it meanwhile."""
        try:
            return not self.forget()
        except (OSError, EOFError, ValueError):
            return False

    def forget(self) -> bool:
        """Let it forget the tables of a call; return True when it should not be used again."""
        self.send({"do": "forget"})
        return bool(self.receive()["is_worn"])

    def await_ready(self) -> None:
        """Wait until it answers.

        Raises:
            QueryError: When it does not.
        """
        late = threading.Timer(_START_TIMEOUT_S, self.end)
        late.daemon = True
        late.start()
        try:
            self.receive()
        except EOFError as error:
            raise QueryError(
                f"the program that runs queries, {_PROGRAM}, did not start: it ended with code "
                f"{self._process.wait()}. Is DuckDB installed for {sys.executable}?"
            ) from error
        finally:
            late.cancel()

    def send(self, request: dict[str, Any], table: pa.Table | None = None) -> None:
        stream = self._stream(self._process.stdin)
        body = json.dumps(request).encode()
        stream.write(struct.pack("!I", len(body)) + body)
        if table is not None:
            import pyarrow as pa

            with pa.ipc.new_stream(pa.PythonFile(stream, mode="w"), table.schema) as writer:
                writer.write_table(table)
        stream.flush()

    def receive(self) -> dict[str, Any]:
        stream = self._stream(self._process.stdout)
        header = stream.read(4)
        size = struct.unpack("!I", header)[0] if len(header) == 4 else 0
        if not 0 < size <= _MAX_ANSWER_BYTES:
            raise EOFError
        body = stream.read(size)
        if len(body) < size:
            raise EOFError
        answer: dict[str, Any] = json.loads(body)
        return answer

    def memory_bytes(self) -> int:
        """Return the memory it has, 0 when it has gone."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def end(self) -> None:
        """End it now; does nothing when it has gone."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            # Now: what is left to be written would be tried again, and complained about, much later.
            self._stream(self._process.stdin).close()

    def _stream(self, stream: Any) -> BinaryIO:
        opened: BinaryIO = stream
        return opened


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _too_much(limits: Limits) -> str:
    return f"it needs more than {_gigabytes(limits.memory_bytes)} of memory. Ask for less."


def _died(limits: Limits) -> str:
    return (
        "the program that ran it has ended, most likely because it needed more than "
        f"{_gigabytes(limits.memory_bytes)} of memory. Ask for less."
    )


class _Holder:
    """The one place where the kernel's process is kept; a forked child gets its own."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        # A new lock too: another thread of the parent may have held the old one at the fork.
        self._lock = threading.Lock()
        self._process: _Process | None = None

    @contextlib.contextmanager
    def turn(self, call: QueryCall) -> Iterator[_Process]:
        """Give the process to one call at a time."""
        lock = self._lock
        while not lock.acquire(timeout=_POLL_S):
            if call.is_cancelled:
                raise QueryError("it was cancelled.")
        try:
            yield self._ready(call.limits.memory_bytes)
        finally:
            lock.release()

    def close(self) -> None:
        """End the process; for the end of the kernel."""
        if self._process is not None:
            self._process.end()

    def _ready(self, memory_bytes: int) -> _Process:
        process = self._process
        if process is not None and process.memory_limit_bytes == memory_bytes and process.answers():
            return process
        self.close()
        self._process = _Process(memory_bytes)
        self._process.await_ready()
        return self._process


_holder = _Holder()
atexit.register(_holder.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holder.reset)

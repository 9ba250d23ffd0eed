"""Calls of the kernel's tools, and what each may use.

Owns the limits, who is next, and the words when a limit is reached. Invariants: at most one process per
kernel; whatever a statement does, the caller goes on after the deadline, the kernel's own memory does not
grow, and the next statement is run.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research_kit.agent.queries.answers import QueryError
from research_kit.agent.queries.process import QueryProcess

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Limits", "QueryCall", "Session"]

_POLL_S = 0.05
# Beside the tables and the memory of a statement: Python, DuckDB and Arrow themselves.
_PROGRAM_BYTES = 500_000_000


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

    def __init__(self, process: QueryProcess, call: QueryCall) -> None:
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
        except QueryError:
            raise
        except (OSError, EOFError, ValueError) as error:
            # A pipe that was closed here is a ValueError.
            self._process.end()
            raise QueryError(self._end_reason or _died(self._call.limits)) from error


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
        self._process: QueryProcess | None = None
        self.reset()

    def reset(self) -> None:
        # Kept: tidied up in the fork, its pipe could get what the parent was about to write.
        self._parents_own = self._process
        self._process = None
        # A new lock too: another thread of the parent may have held the old one at the fork.
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, call: QueryCall) -> Iterator[QueryProcess]:
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

    def _ready(self, memory_bytes: int) -> QueryProcess:
        process = self._process
        if process is not None and process.memory_limit_bytes == memory_bytes and process.answers():
            return process
        self.close()
        self._process = QueryProcess(memory_bytes)
        self._process.await_ready()
        return self._process


_holder = _Holder()
atexit.register(_holder.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holder.reset)

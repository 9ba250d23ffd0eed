"""Which notebook cell runs now, on which thread.

Owns the begin and the end of cells as IPython's hooks tell them; knows no OpenTelemetry, so that a cell costs
nothing while nothing is traced. Invariant: a cell that runs inside another one (``run_cell`` in a cell)
belongs to the outer one, and a cell whose end was never told is over when the next one begins.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from research_kit.session.facts import notebook_path

if TYPE_CHECKING:
    from research_kit.session.cell_trace import CellTrace

__all__ = ["Cell", "Ending", "RunningCells", "describe_error", "running_cells"]

_HASH_LENGTH = 16
_MAX_MESSAGE_LENGTH = 1000
_INTERRUPTS = (KeyboardInterrupt, asyncio.CancelledError)


class Ending(NamedTuple):
    """How a cell ended: its outcome, and what went wrong."""

    outcome: Literal["success", "error", "interrupted"]
    message: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Cell:
    """One execution of a notebook cell.

    Attributes:
        source: Its text as the user wrote it.
        name: Name of its trace.
        is_named: Whether the user named it, which makes a trace of it in any case.
        cell_id: The nbformat id; None where the front end sends none, as papermill.
        execution_count: The number in its brackets; None when unknown.
        request: What the front end asked for; cells inside one another share it.
        start_time_ns: When it began.
        end_time_ns: When it ended; None while it runs.
        ending: How it ended; None while it runs.
        trace: Its trace, once telemetry is on.
        depth: Cells inside it that run, itself included.
    """

    source: str
    name: str
    is_named: bool = False
    cell_id: str | None = None
    execution_count: int | None = None
    request: object = None
    start_time_ns: int = field(default_factory=time.time_ns)
    end_time_ns: int | None = None
    ending: Ending | None = None
    trace: CellTrace | None = None
    depth: int = 1

    def describe(self) -> Mapping[str, str | int]:
        """Return the metadata that every observation of the cell carries."""
        found: dict[str, str | int | None] = {
            "cell_id": self.cell_id,
            "execution_count": self.execution_count,
            "notebook": notebook_path(),
            "source_hash": hashlib.sha256(self.source.encode("utf-8", "replace")).hexdigest()[:_HASH_LENGTH],
        }
        return {key: value for key, value in found.items() if value is not None}


class RunningCells:
    """The cells that run now, one per thread: the kernel's own, and one per subshell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_thread: dict[int, Cell] = {}

    def begin(self, cell: Cell) -> Cell | None:
        """Take note that ``cell`` begins on this thread.

        Returns:
            A cell of this thread whose end was never told.
        """
        thread_id = threading.get_ident()
        with self._lock:
            running = self._by_thread.get(thread_id)
            if running is not None and running.request == cell.request:
                running.depth += 1
                return None
            self._by_thread[thread_id] = cell
            return _cut_off(running)

    def end(self, result: Any) -> Cell | None:
        """Take note that a cell of this thread has ended.

        Args:
            result: IPython's ``ExecutionResult``; None when the cell was interrupted.

        Returns:
            The cell; None when another one around it still runs, or its beginning was not seen.
        """
        if result is not None and not (result.info.raw_cell or "").strip():
            return None  # IPython tells the end of an empty cell, and not its beginning
        thread_id = threading.get_ident()
        with self._lock:
            running = self._by_thread.get(thread_id)
            if running is None:
                return None
            running.depth -= 1
            if running.depth:
                return None
            del self._by_thread[thread_id]
        running.end_time_ns = time.time_ns()
        running.ending = _ending_of(result)
        return running

    def of_this_thread(self) -> Cell | None:
        """Return the cell that runs on this thread."""
        return self._by_thread.get(threading.get_ident())

    def only_one(self) -> Cell | None:
        """Return the cell that runs; None when none does, or several do in subshells."""
        with self._lock:
            return next(iter(self._by_thread.values())) if len(self._by_thread) == 1 else None

    def cut_off(self) -> Cell | None:
        """Return the cell of this thread, ended here because its end will not be told."""
        with self._lock:
            return _cut_off(self._by_thread.pop(threading.get_ident(), None))


def describe_error(error: BaseException | None) -> str:
    """Return the type and message of ``error`` in at most 1,000 characters."""
    return "" if error is None else f"{type(error).__name__}: {error}"[:_MAX_MESSAGE_LENGTH]


def _cut_off(cell: Cell | None) -> Cell | None:
    if cell is not None:
        cell.end_time_ns = time.time_ns()
        cell.ending = Ending("interrupted", "its end was not seen")
    return cell


def _ending_of(result: Any) -> Ending:
    if result is None:
        return Ending("interrupted", "interrupted")
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return Ending("success")
    if isinstance(error, _INTERRUPTS):
        return Ending("interrupted", "interrupted")
    return Ending("error", describe_error(error))


running_cells = RunningCells()

"""The papermill engine of regression runs.

Owns what happens between papermill and the kernel: environment and folder of the kernel, deadlines, dead
kernels, the limit on outputs, and the true account of the first failure. Does not read or judge files.
Invariant: when `RegressionEngine` returns or raises, the kernel that it started has ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any, Literal

from jupyter_client.manager import KernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import ensure_async, run_sync
from nbformat import NotebookNode, from_dict
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from research_kit.masking import masked_text
from research_kit.regression.cells import INJECTED_TAG, read_options, read_tags
from research_kit.regression.kernel_client import ReadyClient
from research_kit.regression.kernel_side import KernelSide, RunOrder
from research_kit.regression.memory_limit import limit_memory
from research_kit.regression.terminal_text import strip_colours
from research_kit.regression.warm_kernels import WarmKernels

__all__ = ["ENGINE_NAME", "CellError", "Execution", "RegressionEngine", "RunOptions", "register_engine"]

ENGINE_NAME = "research_kit"
MAX_OUTPUT_BYTES = 20_000_000
_TOO_MUCH_OUTPUT = (
    f"The cell wrote more than {MAX_OUTPUT_BYTES // 1_000_000} MB of outputs and was stopped. Print less."
)

# After the reply of a cell its outputs are still on their way; on a busy machine longer than nbclient's 4 s.
_OUTPUTS_WAIT_S = 20
_INTERRUPT_WAIT_S = 2.0
_LAST_OUTPUT_CHARS = 500
# The path of a socket has at most 103 characters on some platforms; a longer TMPDIR leaves the ports.
_SOCKET_DIR_CHARS = 80

# nbclient logs as errors what the result already says; in a test report that is noise.
_quiet = logging.getLogger(f"{__name__}.nbclient")
_quiet.setLevel(logging.CRITICAL)

Failure = Literal["failed", "timeout", "crashed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellError:
    """What went wrong in one cell.

    Attributes:
        cell_index: Position of the cell in the notebook, from 0, markdown cells counted.
        execution_count: The number in brackets; None when the cell did not get one.
        source: The whole source of the cell.
        error_name: The class of the exception, or our own word for a timeout, a dead kernel, too much output.
        error_value: Its message.
        traceback: The kernel's traceback without terminal colours; empty when there is none.
        last_output: The end of what the cell wrote before; empty when it wrote nothing.
    """

    cell_index: int
    execution_count: int | None
    source: str
    error_name: str
    error_value: str
    traceback: str
    last_output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a notebook is executed.

    Attributes:
        parameters: Values for the cell tagged ``parameters``.
        cell_timeout_s: The longest that one cell may take.
        notebook_timeout_s: The longest that all cells together may take.
        environ: The whole environment of the kernel; None passes on the environment of this process.
        warm_kernels: Where the kernel is taken from; None starts one.
        order: The session that the kernel is bound to, and the cassette that it replays; None neither.
        cwd: The folder that the kernel runs in; None is that of the notebook.
        memory_limit_mb: How much memory the kernel may ask for, in megabytes; None sets no limit.
    """

    parameters: Mapping[str, object]
    cell_timeout_s: float
    notebook_timeout_s: float
    environ: Mapping[str, str] | None = None
    warm_kernels: WarmKernels | None = None
    order: RunOrder | None = None
    cwd: Path | None = None
    memory_limit_mb: float | None = None


@dataclass(slots=True, kw_only=True)
class Execution:
    """What one execution is given, and what the engine reports back; the only value here that changes.

    Attributes:
        seen: What `in_kernel.end_run` told; None when the kernel was told nothing, or has died.
        ends_with_notebook: Whether the limit of the current cell is what the notebook has left.
    """

    options: RunOptions
    deadline: float
    cwd: Path
    stderr: IO[bytes]
    socket_dir: str
    failure: Failure | None = None
    error: CellError | None = None
    has_started: bool = False
    seen: dict[str, Any] | None = None
    ends_with_notebook: bool = False

    def remaining_s(self, cell: NotebookNode) -> float:
        """How long the next cell may take; never 0, which nbclient reads as no limit."""
        left_s = self.deadline - monotonic()
        # Noted here: when the time is up, the clocks of the event loop and of this process may disagree.
        self.ends_with_notebook = left_s < self.options.cell_timeout_s
        return max(0.05, min(self.options.cell_timeout_s, left_s))


class RegressionClient(PapermillNotebookClient):  # type: ignore[misc]  # papermill has no type information
    """Executes the cells and tells `Execution` the truth about the first failure."""

    def __init__(self, nb_man: Any, *, execution: Execution, **traits: Any) -> None:
        super().__init__(nb_man, timeout_func=execution.remaining_s, iopub_timeout=_OUTPUTS_WAIT_S, **traits)
        self.execution = execution
        self.output_bytes = 0
        self.interruption: asyncio.Future[None] | None = None

    def create_kernel_manager(self) -> KernelManager:
        """Let the kernel listen on sockets in a folder of its own, where the platform has them.

        Free ports are looked up before the kernel opens them: runs side by side take each other's.
        """
        manager: KernelManager = super().create_kernel_manager()
        manager.client_factory = ReadyClient
        if os.name == "posix" and len(self.execution.socket_dir) < _SOCKET_DIR_CHARS:
            manager.transport, manager.ip = "ipc", f"{self.execution.socket_dir}/kernel"
        if self.execution.options.warm_kernels is not None:
            self.execution.options.warm_kernels.adopt(manager)
        return manager

    def execute(self, **kwargs: Any) -> NotebookNode:
        """Execute the notebook in a kernel of its own."""
        self.reset_execution_trackers()
        execution = self.execution
        if execution.options.environ is not None:
            kwargs["env"] = dict(execution.options.environ)
        # What the process itself writes (a crash, a child process) must not reach the terminal of the caller.
        with self.setup_kernel(
            cwd=str(execution.cwd), stdout=execution.stderr, stderr=execution.stderr, **kwargs
        ):
            execution.has_started = True
            _mask_parameters(self.nb)
            if execution.options.memory_limit_mb is not None:
                limit_memory(self.km.provisioner.pid, execution.options.memory_limit_mb)
            # papermill asks the kernel after the last cell and waits without limit; its specification knows.
            self.nb.metadata.setdefault("language_info", {"name": self.km.kernel_spec.language})
            side = KernelSide(self.kc, execution.options.order)
            run_sync(side.begin)()
            try:
                self.papermill_execute_cells()
                self.set_widgets_metadata()
            finally:
                if execution.failure != "crashed" and self.shutdown_kernel != "immediate":
                    execution.seen = run_sync(side.end)(is_complete=execution.failure is None)
        executed: NotebookNode = self.nb
        return executed

    def execute_cell(self, cell: NotebookNode, cell_index: int, **kwargs: Any) -> NotebookNode:
        """Execute one cell, unless its tags or comments say that it is skipped."""
        options = read_options(cell)
        if options.is_skipped:
            return cell
        self.output_bytes, self.interruption = 0, None
        try:
            super().execute_cell(cell, cell_index, **kwargs)
            if self.interruption is not None:
                raise CellExecutionError("", "TooMuchOutput", "")
        except CellExecutionError as error:
            self._take_error(cell, cell_index, error)
        except CellTimeoutError as error:
            name, text = self._describe_timeout(str(error))
            self._report("timeout", cell_index, name, text, self._interrupt(cell))
            raise
        except DeadKernelError:
            self._report("crashed", cell_index, "DeadKernel", self._describe_end(), "")
            raise
        finally:
            _mask_cell(cell)
        return cell

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Take one message of the kernel into the cell; beyond the limit on outputs, stop the cell."""
        self.output_bytes += _count_output(msg["content"])
        if self.output_bytes <= MAX_OUTPUT_BYTES or msg["msg_type"] in ("status", "error"):
            output: NotebookNode | None = super().process_message(msg, cell, cell_index)
            return output
        if self.interruption is None:
            # Kept as an attribute: the event loop itself holds tasks weakly.
            self.interruption = asyncio.ensure_future(self._async_interrupt_kernel())
        return None

    def _take_error(self, cell: NotebookNode, cell_index: int, error: CellExecutionError) -> None:
        if self.interruption is not None:
            self._report("failed", cell_index, "TooMuchOutput", _TOO_MUCH_OUTPUT, _find_traceback(cell))
            raise error
        if not read_options(cell).may_raise:
            self._report("failed", cell_index, error.ename, error.evalue, _find_traceback(cell))
            raise error

    def _describe_timeout(self, message: str) -> tuple[str, str]:
        execution = self.execution
        if "IOPub" in message:
            return (
                "OutputTimeout",
                f"The cell ended, but its outputs did not arrive within {_OUTPUTS_WAIT_S} s.",
            )
        if execution.ends_with_notebook:
            return "NotebookTimeout", (
                f"The notebook had not ended after {execution.options.notebook_timeout_s:g} s "
                "(notebook_timeout_s) and this cell was running. Make it faster, or raise the limit."
            )
        return "CellTimeout", (
            f"The cell was still running after {execution.options.cell_timeout_s:g} s (cell_timeout_s). "
            "Make it faster, or raise the limit."
        )

    def _describe_end(self) -> str:
        exit_code = run_sync(self._async_exit_code)()
        if exit_code is not None and exit_code < 0:
            return f"The kernel was ended by {signal.Signals(-exit_code).name} while this cell was running"
        return f"The kernel ended with exit code {exit_code} while this cell was running"

    async def _async_exit_code(self) -> int | None:
        code: int | None = await self.km.provisioner.poll()
        return code

    def _report(self, failure: Failure, cell_index: int, name: str, value: str, traceback: str) -> None:
        cell = self.nb.cells[cell_index]
        self.execution.failure = failure
        self.execution.error = CellError(
            cell_index=cell_index,
            execution_count=cell.get("execution_count"),
            source=masked_text(cell.source),
            error_name=name,
            error_value=masked_text(strip_colours(value)),
            traceback=masked_text(strip_colours(traceback)),
            last_output=masked_text(_last_output(cell)),
        )

    def _interrupt(self, cell: NotebookNode) -> str:
        """Stop the running cell, so that the kernel can end in order; return where the cell was."""
        return run_sync(self._async_interrupt)(cell)

    async def _async_interrupt(self, cell: NotebookNode) -> str:
        await self._async_interrupt_kernel()
        deadline = monotonic() + _INTERRUPT_WAIT_S
        while monotonic() < deadline:
            # nbclient leaves its own reader running after a timeout, and it puts the error into the cell.
            if traceback := _find_traceback(cell):
                return traceback
            await asyncio.sleep(0.02)
        # A cell that swallows the interrupt would also make the orderly shutdown wait in vain.
        self.shutdown_kernel = "immediate"
        return ""

    async def _async_interrupt_kernel(self) -> None:
        await ensure_async(self.km.interrupt_kernel())


class RegressionEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no type information
    """papermill's nbclient engine with `RegressionClient` as its client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, execution: Execution, start_timeout: int = 60, **options: Any
    ) -> NotebookNode:
        """Execute the notebook that ``nb_man`` holds; papermill passes the options."""
        client = RegressionClient(
            nb_man, execution=execution, kernel_name=kernel_name, startup_timeout=start_timeout, log=_quiet
        )
        with _saving_plainly(nb_man):
            return client.execute()


@contextmanager
def _saving_plainly(nb_man: Any) -> Iterator[None]:
    """Let papermill write the copy unformatted while cells run; the last time it does so as always.

    It writes before and after each cell, and formatting took longer than the cells of a small notebook.
    """

    def save(**_: Any) -> None:
        Path(nb_man.output_path).write_text(json.dumps(nb_man.nb), encoding="utf-8")
        nb_man.last_save_time = nb_man.now()

    nb_man.save = save
    try:
        yield
    finally:
        del nb_man.save


def register_engine() -> None:
    """Make the engine known to papermill; doing it twice equals doing it once."""
    papermill_engines.register(ENGINE_NAME, RegressionEngine)


def _mask_parameters(notebook: NotebookNode) -> None:
    papermill = notebook.metadata.get("papermill", {})
    if papermill.get("parameters"):
        papermill["parameters"] = json.loads(masked_text(json.dumps(papermill["parameters"], default=str)))


def _mask_cell(cell: NotebookNode) -> None:
    """Take the secrets out of what the executed copy will say of a cell that has run."""
    if cell.cell_type != "code":
        return
    outputs = json.dumps(cell.outputs)
    masked = masked_text(outputs)
    if masked != outputs:
        cell.outputs = from_dict({"outputs": json.loads(masked)}).outputs  # type: ignore[no-untyped-call] # untyped in nbformat
    if INJECTED_TAG in read_tags(cell):
        cell.source = masked_text(cell.source)


def _find_traceback(cell: NotebookNode) -> str:
    errors = [output for output in cell.outputs if output.output_type == "error"]
    return "\n".join(errors[-1].traceback) if errors else ""


def _last_output(cell: NotebookNode) -> str:
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    return strip_colours("".join(texts))[-_LAST_OUTPUT_CHARS:].strip()


def _count_output(content: Mapping[str, Any]) -> int:
    text = content.get("text")
    if isinstance(text, str):
        return len(text)
    data = content.get("data")
    return (
        sum(len(value) for value in data.values() if isinstance(value, str)) if isinstance(data, dict) else 0
    )

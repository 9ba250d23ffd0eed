"""One execution of one notebook.

Owns the way from a file to a `RunResult`: executing with papermill, saving the executed copy, telling the
outcome. Does not compare outputs and knows no test framework. Invariant: whatever the notebook does,
`run_notebook` returns a result within the time limit, and the executed copy on disk shows how far it came.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, time
from typing import IO, Literal

import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers
from papermill.iorw import write_ipynb

from research_kit.errors import ConfigError
from research_kit.plain_text import plain_text
from research_kit.regression.cells import INJECTED_TAG, read_tags
from research_kit.regression.documents import read_notebook
from research_kit.regression.engine import (
    ENGINE_NAME,
    CellError,
    Execution,
    RunOptions,
    register_engine,
)
from research_kit.regression.kernel_side import KernelRefusedError
from research_kit.regression.remote import fetch, fetched_path, is_remote, make_local_folder, send, shown
from research_kit.regression.terminal_text import strip_colours
from research_kit.regression.trace_facts import TraceFacts

__all__ = ["CellError", "Outcome", "RunOptions", "RunResult", "execute_run", "run_notebook", "send_copy"]

Outcome = Literal["passed", "failed", "timeout", "crashed", "not_started"]

_START_TIMEOUT_S = 60
_STDERR_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFacts:
    """What became of a run's cassette.

    Attributes:
        path: The file.
        replayed_count: Calls that it answered.
        recorded_count: Calls that were recorded into it.
        unused_count: Recorded calls that were not made.
        unused: The first of these, a line each.
        misses: Calls that it could not answer, each with the nearest one.
    """

    path: str
    replayed_count: int
    recorded_count: int
    unused_count: int
    unused: str
    misses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What became of one run.

    Attributes:
        path: The notebook that was run.
        output_path: The executed copy; it exists unless the outcome is ``not_started``.
        outcome: ``passed`` (every cell ran), ``failed`` (a cell raised), ``timeout``, ``crashed`` (the kernel
            died) or ``not_started`` (unreadable notebook, missing kernel).
        message: One sentence that says what happened; empty when it passed.
        error: The failing cell; None when no cell is to blame.
        duration_s: How long the run took, kernel start included.
        parameters: The parameters that were injected.
        session_id: The session that the run was bound to; None when it was bound to none.
        session_url: The session's page; None when unknown.
        facts: What its traces say; None when nothing was watched, or the kernel died.
        replay: What its cassette says; None when there was none.
        start_time_s: When it began, in seconds since 1970.
        sent_to: The address that the executed copy was sent to, as it may be shown; None when to none.
    """

    path: Path
    output_path: Path
    outcome: Outcome
    message: str
    error: CellError | None
    duration_s: float
    parameters: Mapping[str, object]
    session_id: str | None = None
    session_url: str | None = None
    facts: TraceFacts | None = None
    replay: ReplayFacts | None = None
    start_time_s: float = 0.0
    sent_to: str | None = None

    @property
    def is_replayed(self) -> bool:
        """Whether all answers of language models and tools came from a cassette."""
        return self.replay is not None and not self.replay.recorded_count


def run_notebook(
    path: Path | str,
    *,
    output_path: Path | str,
    parameters: Mapping[str, object] | None = None,
    cell_timeout_s: float = 120.0,
    notebook_timeout_s: float = 600.0,
    environ: Mapping[str, str] | None = None,
) -> RunResult:
    """Execute a notebook in a new kernel, in the notebook's own folder, and save the executed copy.

    Both paths may be addresses that papermill reads and writes, such as ``s3://bucket/a.ipynb``. A remote
    notebook is fetched and run in the current folder. The copy is written to this machine cell by cell, below
    ``.research_kit/remote``, and sent when the run has ended; one that cannot be sent is kept there.

    Args:
        path: The notebook; it is not changed.
        output_path: Where the executed copy goes; folders are made, an older copy is replaced.
        parameters: Values for the cell tagged ``parameters``.
        cell_timeout_s: The longest that one cell may take.
        notebook_timeout_s: The longest that all cells together may take.
        environ: The whole environment of the kernel; None passes on the environment of this process.

    Raises:
        ConfigError: When ``output_path`` is the notebook itself or cannot be written, or when there are
            parameters and the notebook has no cell for them.
    """
    options = RunOptions(
        parameters=parameters or {},
        cell_timeout_s=cell_timeout_s,
        notebook_timeout_s=notebook_timeout_s,
        environ=environ,
        cwd=Path.cwd() if is_remote(path) else None,
    )
    if path == output_path and is_remote(path):
        raise ConfigError(_is_itself(shown(str(path))))
    local_path, local_output = _local(path), _local(output_path)
    if is_remote(output_path):
        with suppress(OSError):  # told in a moment
            make_local_folder(local_output)
    unread = ""
    if is_remote(path):
        try:
            fetch(str(path), Path.cwd())
        except ConfigError as error:
            unread = str(error)
    result = execute_run(local_path, local_output, options)
    if unread:
        return replace(result, message=unread)
    return send_copy(result, str(output_path)) if is_remote(output_path) else result


def _local(place: Path | str) -> Path:
    if isinstance(place, Path) and is_remote(str(place)):
        raise ConfigError(f"{str(place)!r} is a Path, which cannot hold an address. Give it as a text.")
    return fetched_path(str(place), Path.cwd()) if is_remote(place) else Path(place)


def send_copy(result: RunResult, address: str) -> RunResult:
    """Send the executed copy; one that cannot be sent makes a run that passed a failed one."""
    if not result.output_path.exists():
        return result
    try:
        send(result.output_path, address)
    except ConfigError as error:
        unsent = f"{error} The copy is kept as {str(result.output_path)!r}."
        outcome: Outcome = "failed" if result.outcome == "passed" else result.outcome
        before = f"{result.message.rstrip('.')}. " if result.message else ""
        return replace(result, outcome=outcome, message=f"{before}{unsent}")
    return replace(result, sent_to=shown(address))


def execute_run(path: Path, output_path: Path, options: RunOptions) -> RunResult:
    """Do what `run_notebook` says, with files of this machine."""
    started = monotonic()
    path, output_path = path.absolute(), output_path.absolute()
    _prepare_output(path, output_path)
    result = RunResult(
        path=path,
        output_path=output_path,
        outcome="passed",
        message="",
        error=None,
        duration_s=0.0,
        parameters=dict(options.parameters),
        start_time_s=time(),
    )
    try:
        _require_text(output_path)
        notebook = read_notebook(path)
    except ConfigError as error:
        return replace(result, outcome="not_started", message=str(error), duration_s=monotonic() - started)
    if options.parameters:
        _require_parameters_cell(notebook, path)
    with tempfile.TemporaryFile() as stderr, tempfile.TemporaryDirectory(prefix="rk-") as socket_dir:
        execution = Execution(
            options=options,
            deadline=started + options.notebook_timeout_s,
            cwd=options.cwd or path.parent,
            stderr=stderr,
            socket_dir=socket_dir,
        )
        result = _execute(result, notebook, execution)
    return replace(result, duration_s=monotonic() - started)


def _is_itself(name: str) -> str:
    return f"output_path is the notebook itself, {name!r}. Give another path for the executed copy."


def _prepare_output(path: Path, output_path: Path) -> None:
    if path.resolve() == output_path.resolve():
        raise ConfigError(_is_itself(str(path)))
    try:
        output_path.parent.mkdir(parents=True, exist_ok=True)
        # An old copy must not be taken for the result of a run that never starts.
        output_path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot write the executed copy to {str(output_path)!r}: {error.strerror}. "
            "Give another output_path."
        ) from error


def _require_text(path: Path) -> None:
    """Refuse names that are no text: the executed copy says where it is from."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"Cannot write the executed copy {str(path)!r}: its name is not UTF-8. Rename the notebook."
        ) from error


def _require_parameters_cell(notebook: NotebookNode, path: Path) -> None:
    if not any("parameters" in read_tags(cell) for cell in notebook.cells):
        raise ConfigError(
            f"There are parameters for {str(path)!r}, but none of its cells is tagged 'parameters', so they "
            "would have no effect. Tag the cell that assigns the defaults."
        )


def _execute(result: RunResult, notebook: NotebookNode, execution: Execution) -> RunResult:
    spec = notebook.metadata.get("kernelspec") or {}
    kernel_name = spec.get("name") or "python3"
    try:
        _papermill(result, execution, kernel_name, spec.get("language") or "python")
    except PapermillExecutionError:
        # papermill also raises for cells whose exception is expected; the engine has recorded which it was.
        if execution.failure is None:
            write_ipynb(remove_error_markers(read_notebook(result.output_path)), str(result.output_path))
    except (CellTimeoutError, DeadKernelError):
        pass  # the engine has recorded it
    except NoSuchKernel:
        return _not_started(result, _missing_kernel(result.path, kernel_name))
    except KernelRefusedError as error:
        return _not_started(result, str(error))
    except (RuntimeError, OSError) as error:
        if execution.has_started and isinstance(error, OSError):
            return _unsaved(result, execution, error)
        if execution.has_started:
            raise
        cause = f"{error}{_quote_tail(execution.stderr)}"
        remedy = "Check that its kernel can be started: jupyter kernelspec list"
        return _not_started(
            result, f"The kernel {kernel_name!r} of {str(result.path)!r} did not start: {cause}. {remedy}"
        )
    return _conclude(result, execution)


def _papermill(result: RunResult, execution: Execution, kernel_name: str, language: str) -> None:
    register_engine()
    papermill.execute_notebook(
        _literal(result.path),
        _literal(result.output_path),
        parameters=dict(result.parameters),
        engine_name=ENGINE_NAME,
        kernel_name=kernel_name,
        language=language,
        progress_bar=False,
        start_timeout=min(_START_TIMEOUT_S, max(1, int(execution.options.notebook_timeout_s))),
        execution=execution,
    )


def _unsaved(result: RunResult, execution: Execution, error: OSError) -> RunResult:
    message = (
        f"The executed copy {str(result.output_path)!r} could not be written while the notebook ran: "
        f"{error.strerror or error}. Make room there, or give another output folder."
    )
    return replace(_with_seen(result, execution), outcome="failed", message=message, error=execution.error)


def _literal(path: Path) -> str:
    """Protect braces: papermill fills parameters into paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _not_started(result: RunResult, message: str) -> RunResult:
    return replace(result, outcome="not_started", message=message)


def _missing_kernel(path: Path, kernel_name: str) -> str:
    installed = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
    command = f"python -m ipykernel install --sys-prefix --name {shlex.quote(plain_text(kernel_name))}"
    return (
        f"The notebook {str(path)!r} asks for the kernel {kernel_name!r}, which is not installed (installed: "
        f"{installed}). Install it ({command}), or choose another kernel in the notebook."
    )


def _conclude(result: RunResult, execution: Execution) -> RunResult:
    error = execution.error
    result = _with_seen(result, execution)
    if execution.failure is None or error is None:
        return result
    executed = read_notebook(result.output_path)
    message = error.error_value
    if execution.failure == "failed" and error.error_name == "SystemExit":
        message = "The cell ended the notebook with SystemExit, so the cells after it did not run."
    elif execution.failure == "failed":
        message = f"{error.error_name}: {error.error_value}"
    elif execution.failure == "crashed":
        message = f"{error.error_value}{_quote_tail(execution.stderr)}."
    return replace(
        result, outcome=execution.failure, message=message, error=_in_the_original(error, executed)
    )


def _with_seen(result: RunResult, execution: Execution) -> RunResult:
    order, seen = execution.options.order, execution.seen
    if order is None or seen is None:
        return result if order is None else replace(result, session_id=order.session_id)
    replay = seen["replay"]
    return replace(
        result,
        session_id=order.session_id,
        session_url=seen["session_url"],
        facts=TraceFacts.from_json(seen["facts"]),
        replay=None if replay is None else ReplayFacts(**{**replay, "misses": tuple(replay["misses"])}),
    )


def _in_the_original(error: CellError, executed: NotebookNode) -> CellError:
    """Count the cell in the notebook as written, without the cell that papermill injects before it."""
    cells = remove_error_markers(executed).cells[: error.cell_index]
    injected_count = sum(INJECTED_TAG in read_tags(cell) for cell in cells)
    return replace(error, cell_index=error.cell_index - injected_count)


def _quote_tail(stderr: IO[bytes]) -> str:
    stderr.seek(0, 2)
    stderr.seek(max(0, stderr.tell() - _STDERR_TAIL_BYTES))
    lines = strip_colours(stderr.read().decode(errors="replace")).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("[IPKernelApp] WARNING")).strip()
    return f"; its last words: {text}" if text else ""

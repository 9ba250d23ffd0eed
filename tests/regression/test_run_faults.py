"""Whatever a notebook or its machine does, a run ends in a result, and no kernel is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from research_kit.regression.run import RunOptions, RunResult, execute_run
from research_kit.regression.warm_kernels import WarmKernels

PRINTS_PID = "import os; print('pid', os.getpid(), flush=True)"
SETTINGS = {"parameters": {}, "cell_timeout_s": 60.0, "notebook_timeout_s": 90.0}


@pytest.fixture(scope="module")
def warm_kernels() -> Iterator[WarmKernels]:
    kernels = WarmKernels()
    yield kernels
    kernels.close()


def run(path: Path, output: Path, warm_kernels: WarmKernels, **options: object) -> RunResult:
    given = {**SETTINGS, "warm_kernels": warm_kernels, **options}
    return execute_run(path, output, RunOptions(**given))


def texts(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"the kernel {pid} still runs"
        time.sleep(0.05)


FAULTS = {
    "endless loop in C": (
        # What was printed is sent by another thread, which needs the interpreter for a moment.
        "import time; print('counting'); time.sleep(0.5); sum(iter(int, 1))",
        {"cell_timeout_s": 2.0},
        ("timeout", "CellTimeout", "The cell was still running after 2 s"),
    ),
    "asleep in C": (
        "import ctypes; print('counting', flush=True); ctypes.CDLL(None).sleep(600)",
        {"notebook_timeout_s": 4.0},
        ("timeout", "NotebookTimeout", "The notebook had not ended after 4 s"),
    ),
    "memory limit": (
        "print('counting'); kept = [bytearray(50_000_000) for _ in range(100)]",
        {"memory_limit_mb": 700.0},
        ("failed", "MemoryError", "MemoryError"),
    ),
    "killed": (
        # Here too the output thread needs a moment.
        "import signal, time; print('counting'); time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)",
        {},
        ("crashed", "DeadKernel", "The kernel was ended by SIGKILL"),
    ),
    "asks a question": (
        "print('counting'); input('name? ')",
        {},
        ("failed", "StdinNotImplementedError", "StdinNotImplementedError"),
    ),
    "50 MB of output": (
        "print('counting')\nfor _ in range(50): print('x' * 1_000_000)",
        {},
        ("failed", "TooMuchOutput", "The cell wrote more than 20 MB"),
    ),
}


@pytest.mark.parametrize(("source", "options", "ends"), FAULTS.values(), ids=FAULTS)
def test_fault_ends_in_a_result(project, tmp_path, warm_kernels, source, options, ends):
    """The result has the cell, its source and what it wrote last; the copy is saved, the kernel is gone."""
    output = tmp_path / "copy.ipynb"
    done = run(project.notebook("faulty", PRINTS_PID, source, "1"), output, warm_kernels, **options)
    outcome, name, message = ends
    assert (done.outcome, done.error.error_name, done.error.cell_index) == (outcome, name, 1)
    assert message in done.message
    assert done.error.source == source
    assert "counting" in done.error.last_output or name == "TooMuchOutput"
    assert done.duration_s < 60
    wait_for_end(int(texts(output).split()[1]))


def test_a_disk_that_dies_under_a_run_is_told(project, tmp_path, warm_kernels):
    """When the executed copy cannot be written any more, the result says so, and the kernel ends."""
    folder = tmp_path / "copies"
    source = (
        f"import os, pathlib, shutil\nfolder = pathlib.Path({str(folder)!r})\n"
        "(folder.parent / 'pid').write_text(str(os.getpid()))\nshutil.rmtree(folder)\nfolder.write_text('')"
    )
    done = run(project.notebook("dead_disk", source, "1"), folder / "copy.ipynb", warm_kernels)
    assert done.outcome == "failed"
    assert done.message.startswith(f"The executed copy '{folder}/copy.ipynb' could not be written")
    wait_for_end(int((tmp_path / "pid").read_text()))


def test_async_cells_and_widgets_run(project, tmp_path, warm_kernels):
    """Cells that await, and cells that show widgets, are ordinary cells."""
    path = project.notebook(
        "modern",
        "import asyncio\nawait asyncio.sleep(0)\nprint('awaited')",
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider",
        "print(slider.value)",
    )
    done = run(path, tmp_path / "copy.ipynb", warm_kernels)
    assert done.outcome == "passed", done.message
    assert texts(done.output_path) == "awaited\n3\n"


def test_interrupting_the_runner_ends_the_kernels(project, tmp_path):
    """Ctrl+C ends the command at once, with its own exit code, and the kernels with it."""
    mark = tmp_path / "pid"
    source = (
        f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    project.notebook("long", source, "time.sleep(600)")
    project.configure('notebooks = ["notebooks/*.ipynb"]')
    command = [sys.executable, "-m", "research_kit.cli", "test", "--project", str(project.root)]
    # A test run in the background of a shell ignores Ctrl+C, and so would what it starts.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the kernel did not start"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130, told
    assert "research-kit: interrupted" in told
    wait_for_end(int(mark.read_text()))

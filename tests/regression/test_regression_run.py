"""One run in a real kernel."""

from __future__ import annotations

import json
import os
import pickle
import re
import time

import nbformat
import psutil
import pytest

from research_kit.errors import ConfigError
from research_kit.regression import run_notebook
from research_kit.regression.engine import MAX_OUTPUT_BYTES

SIGNS_OF_LIFE = "import os; print('pid', os.getpid())"


def outputs_of(path):
    return [cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells]


def assert_kernel_ended(output_path):
    """The first cell has printed the kernel's process id."""
    pid = int(next(re.finditer(r"pid (\d+)", output_path.read_text(encoding="utf-8")))[1])
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"kernel {pid} is still {psutil.Process(pid).status()}"
        os.sched_yield()


def test_run_passes_with_parameters_environment_and_markers(project, tmp_path, capfd):
    """Parameters, environment, folder, expected exceptions and skipped cells are as the notebook asks."""
    path = project.notebook(
        "br{ace}s",
        SIGNS_OF_LIFE,
        "size = 1\nword = 'a'",
        "print(size, word, *map(os.environ.get, ['GIVEN', 'REFUSED']), os.path.basename(os.getcwd()))",
        "1 / 0",
        "# NBVAL_RAISES_EXCEPTION\n[][1]",
        "raise SystemError('skipped')",
        "# NBVAL_SKIP\nraise SystemError('skipped')",
        "import subprocess; subprocess.run(['echo', 'from a child'], check=True).returncode",
        tags={1: ["parameters"], 3: ["raises-exception"], 5: ["skip"]},
    )
    before = path.read_bytes()
    environ = {**os.environ, "GIVEN": "yes"}
    os.environ["REFUSED"] = "1"
    try:
        run = run_notebook(
            path, output_path=tmp_path / "o" / "{x}.ipynb", parameters={"size": 2}, environ=environ
        )
    finally:
        del os.environ["REFUSED"]
    assert (run.outcome, run.message, run.error) == ("passed", "", None)
    assert run.parameters == {"size": 2}
    assert 0 < run.duration_s < 60
    outputs = outputs_of(run.output_path)
    assert len(outputs) == 9, "the injected cell came, papermill's error markers went"
    assert outputs[3][0].text == "2 a yes None notebooks\n"
    assert (outputs[4][0].ename, outputs[5][0].ename) == ("ZeroDivisionError", "IndexError")
    assert outputs[6:8] == [[], []]
    assert path.read_bytes() == before
    assert capfd.readouterr() == ("", "")
    assert_kernel_ended(run.output_path)


def test_run_reports_the_failing_cell(project, tmp_path):
    """An exception ends the run with the cell as written, and the copy shows how far it came."""
    path = project.notebook(
        "failing",
        SIGNS_OF_LIFE,
        "size = 1",
        "print('here')\nassert size == 1, 'size is ' + str(size)",
        "print('no')",
        tags={1: ["parameters"]},
    )
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb", parameters={"size": 2})
    assert (run.outcome, run.message) == ("failed", "AssertionError: size is 2")
    assert (run.error.cell_index, run.error.execution_count) == (2, 4)
    assert run.error.source.startswith("print('here')")
    assert "line 2" in run.error.traceback
    assert "\x1b" not in run.error.traceback
    assert "here" in run.output_path.read_text(encoding="utf-8")
    assert pickle.loads(pickle.dumps(run)) == run
    assert outputs_of(run.output_path)[-1] == []


def test_run_ends_an_endless_cell(project, tmp_path):
    """A cell that never ends is stopped, and the traceback shows where it was."""
    path = project.notebook("endless", SIGNS_OF_LIFE, "while True:\n    pass", "print('no')")
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb", cell_timeout_s=1)
    assert run.outcome == "timeout"
    assert run.message.startswith("The cell was still running after 1 s (cell_timeout_s).")
    assert (run.error.cell_index, run.error.error_name) == (1, "CellTimeout")
    assert "KeyboardInterrupt" in run.error.traceback
    assert run.duration_s < 30
    assert_kernel_ended(run.output_path)


def test_run_ends_a_cell_that_swallows_the_interrupt(project, tmp_path):
    """The limit of the whole notebook holds, even against a cell that cannot be interrupted."""
    deaf = (
        "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass"
    )
    path = project.notebook("deaf", SIGNS_OF_LIFE, deaf)
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb", notebook_timeout_s=4)
    assert run.outcome == "timeout"
    assert run.message.startswith("The notebook had not ended after 4 s (notebook_timeout_s)")
    assert run.duration_s < 30
    assert_kernel_ended(run.output_path)


def test_run_notices_a_dead_kernel(project, tmp_path):
    """A kernel that dies is a crash with its exit code and its last words, long before any timeout."""
    dying = "os.write(2, b'last words\\n'); os._exit(3)"
    run = run_notebook(project.notebook("dying", SIGNS_OF_LIFE, dying), output_path=tmp_path / "copy.ipynb")
    assert run.outcome == "crashed"
    assert run.message.startswith("The kernel ended with exit code 3 while this cell was running")
    assert (run.error.cell_index, run.error.error_name) == (1, "DeadKernel")
    assert run.duration_s < 30
    assert_kernel_ended(run.output_path)


def test_run_refuses_input_and_early_exit(project, tmp_path):
    """A cell that asks a question fails at once; so does one that silently ends the notebook."""
    asking = run_notebook(
        project.notebook("asking", "input('name? ')"), output_path=tmp_path / "asking.ipynb"
    )
    assert (asking.outcome, asking.error.error_name) == ("failed", "StdinNotImplementedError")
    path = project.notebook("leaving", "import sys; sys.exit()", "1 / 0")
    leaving = run_notebook(path, output_path=tmp_path / "leaving.ipynb")
    assert leaving.outcome == "failed"
    assert (
        leaving.message == "The cell ended the notebook with SystemExit, so the cells after it did not run."
    )


def test_run_bounds_outputs(project, tmp_path):
    """A cell that prints without end is stopped long before memory or the timeout end."""
    path = project.notebook("flood", SIGNS_OF_LIFE, "while True:\n    print('x' * 1000)")
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb", cell_timeout_s=60)
    assert (run.outcome, run.error.error_name) == ("failed", "TooMuchOutput")
    assert run.message.startswith("TooMuchOutput: The cell wrote more than 20 MB")
    assert run.output_path.stat().st_size < 1.2 * MAX_OUTPUT_BYTES
    assert_kernel_ended(run.output_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"Cannot read the notebook '.*bad\.ipynb': No such file or directory\. Correct the path\."),
        ("<<<<<<< ours\n{}", r"it is not valid JSON .*Look for conflict markers"),
        ("\ufffe".encode("utf-16").decode("latin-1"), r"it is not valid JSON"),
        ("[]", r"it is JSON, but not a notebook"),
        ("{}", r"it is JSON, but not a notebook"),
        ('{"nbformat": 4}', r"it is JSON, but not a notebook"),
        ('{"nbformat": 4, "cells": []}', r"it is JSON, but not a notebook"),
        (
            '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code"}]}',
            r"is missing\)\. Save it again",
        ),
        (
            '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": 3}]}',
            r"but not a notebook",
        ),
        (
            '{"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}',
            r"nbformat refuses it \(Unsupp",
        ),
    ],
)
def test_run_reports_an_unreadable_notebook(tmp_path, text, message):
    """A file that is no notebook is a result that names the file, the cause and the remedy."""
    path = tmp_path / "bad.ipynb"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb")
    assert (run.outcome, run.error) == ("not_started", None)
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(run.message)


def test_run_reports_a_missing_kernel(project, tmp_path):
    """A kernel that is not installed is a result that names it, those that are, and what to do."""
    path = project.notebook("foreign", "1")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["metadata"]["kernelspec"] = {"name": "julia-0.1", "display_name": "Julia", "language": "julia"}
    path.write_text(json.dumps(document), encoding="utf-8")
    copy = tmp_path / "copy.ipynb"
    run = run_notebook(path, output_path=copy)
    assert run.outcome == "not_started"
    assert "asks for the kernel 'julia-0.1', which is not installed (installed: " in run.message
    assert "python3" in run.message
    assert "--name julia-0.1" in run.message


def test_run_reports_a_kernel_that_cannot_start(project, tmp_path, monkeypatch):
    """A kernel whose process ends at once is a result with what it wrote."""
    spec = tmp_path / "jupyter" / "kernels" / "broken"
    spec.mkdir(parents=True)
    argv = ["sh", "-c", "echo cannot find libfoo >&2; exit 1", "{connection_file}"]
    document = {"argv": argv, "display_name": "Broken", "language": "python"}
    spec.joinpath("kernel.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = project.notebook("broken", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "broken", "display_name": "Broken", "language": "python"}
    nbformat.write(notebook, path)
    run = run_notebook(path, output_path=tmp_path / "copy.ipynb")
    assert run.outcome == "not_started"
    assert "The kernel 'broken' of" in run.message
    assert "cannot find libfoo" in run.message


def test_run_refuses_to_overwrite_the_notebook(project):
    """The notebook itself is never the executed copy."""
    path = project.notebook("first", "1")
    with pytest.raises(ConfigError, match=r"output_path is the notebook itself.* Give another path"):
        run_notebook(path, output_path=path)


def test_run_refuses_an_output_path_that_cannot_be_made(project, tmp_path):
    """A file where a folder is needed is named."""
    tmp_path.joinpath("file").touch()
    with pytest.raises(ConfigError, match=r"Cannot write the executed copy to .*Give another output_path"):
        run_notebook(project.notebook("first", "1"), output_path=tmp_path / "file" / "copy.ipynb")


def test_run_refuses_parameters_without_a_cell_for_them(project, tmp_path):
    """Parameters that could have no effect are an error, not a surprise."""
    path = project.notebook("first", "size = 1")
    with pytest.raises(ConfigError, match=r"none of its cells is tagged 'parameters'.* Tag the cell"):
        run_notebook(path, output_path=tmp_path / "copy.ipynb", parameters={"size": 2})


def test_run_removes_an_older_copy(tmp_path):
    """The copy of an earlier run cannot be taken for this one's."""
    copy = tmp_path / "copy.ipynb"
    copy.write_text("old", encoding="utf-8")
    assert run_notebook(tmp_path / "gone.ipynb", output_path=copy).outcome == "not_started"
    assert not copy.exists()

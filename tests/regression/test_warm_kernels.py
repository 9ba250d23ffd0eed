"""Kernels forked from a process that has imported what notebooks import."""

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
from research_kit.regression.warm_kernels import WarmKernels, find_imports


@pytest.fixture(scope="module")
def warm_kernels() -> Iterator[WarmKernels]:
    kernels = WarmKernels(["numpy", "no_such_module"])
    yield kernels
    kernels.close()


def run(path: Path, warm_kernels: WarmKernels, **options: object) -> RunResult:
    given = {"parameters": {}, "cell_timeout_s": 60.0, "notebook_timeout_s": 60.0, **options}
    return execute_run(path, path.with_suffix(".out.ipynb"), RunOptions(warm_kernels=warm_kernels, **given))


def printed(result: RunResult) -> str:
    cells = nbformat.read(result.output_path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for_end(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def test_kernel_is_forked_with_its_own_environment_and_folder(project, warm_kernels):
    """A forked kernel has what was imported ahead, nothing of ours, and its own environment and folder."""
    path = project.notebook(
        "first",
        "import os, sys, time\nprint('numpy' in sys.modules, 'research_kit' in sys.modules, sys.argv[0])",
        "print(os.environ['GIVEN'], os.path.basename(os.getcwd()), os.getpid(), os.getppid())",
    )
    parents = set()
    for test in ("one", "two"):
        environ = {**os.environ, "PYTEST_CURRENT_TEST": test, "GIVEN": "yes"}
        done = run(path, warm_kernels, environ=environ)
        assert done.outcome == "passed", done.message
        first, second = printed(done).splitlines()
        assert first == "True False ipykernel_launcher"
        given, folder, pid, parent = second.split()
        assert (given, folder) == ("yes", "notebooks")
        assert not is_running(int(pid))
        parents.add(int(parent))
    [server] = parents
    assert "fork_server.py" in " ".join(psutil.Process(server).cmdline())


def test_kernels_share_no_state_and_no_random_numbers(project, warm_kernels):
    """What one notebook does to a module, another does not see; both draw different random numbers."""
    path = project.notebook(
        "state",
        "import numpy, random\nprint(hasattr(numpy, 'left_behind'), numpy.random.rand(), random.random())",
        "numpy.left_behind = 1",
    )
    one, other = (printed(run(path, warm_kernels)).split() for _ in range(2))
    assert (one[0], other[0]) == ("False", "False")
    assert not {*one[1:]} & {*other[1:]}


def test_kernel_ends_as_a_started_one_does(project, warm_kernels, tmp_path):
    """Exit handlers and finalizers run, threads end, and what was written is not lost."""
    path = project.notebook(
        "ending",
        f"import atexit, os, pathlib, threading, time\nos.chdir({str(tmp_path)!r})\n"
        "atexit.register(pathlib.Path('handler').write_text, 'ran')",
        "open_file = open('file', 'w'); open_file.write('kept')",
        "class Ring:\n    def __init__(self):\n        self.itself, self.place = self, pathlib.Path('ring')\n"
        "    def __del__(self):\n        self.place.write_text('gone')\nring = Ring(); ring",
        "def work():\n    time.sleep(0.3)\n    pathlib.Path('thread').write_text('ended')\n"
        "threading.Thread(target=work).start()",
    )
    assert run(path, warm_kernels).outcome == "passed"
    names = ("handler", "file", "ring", "thread")
    assert [(tmp_path / name).read_text() for name in names] == ["ran", "kept", "gone", "ended"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os; os._exit(7)", "The kernel ended with exit code 7 while this cell was running"),
        (
            "import os, signal; os.write(2, b'so long'); os.kill(os.getpid(), signal.SIGKILL)",
            "The kernel was ended by SIGKILL while this cell was running; its last words: so long",
        ),
    ],
    ids=["exit", "kill"],
)
def test_death_of_a_kernel_is_told(project, warm_kernels, source, message):
    """A kernel that dies is told with its exit code or signal and last words; the next one is not harmed."""
    done = run(project.notebook("dying", source), warm_kernels)
    assert (done.outcome, done.message) == ("crashed", f"{message}.")
    assert run(project.notebook("next", "1"), warm_kernels).outcome == "passed"


def test_endless_cell_is_ended(project, warm_kernels):
    """The time limit of a cell holds for forked kernels, and nothing of them is left."""
    path = project.notebook("endless", "import os; print(os.getpid(), flush=True)", "while True: pass")
    done = run(path, warm_kernels, cell_timeout_s=1.0)
    assert (done.outcome, done.error.error_name) == ("timeout", "CellTimeout")
    wait_for_end(int(printed(done).split()[0]))


def test_server_that_was_started_ahead_is_the_one_that_is_used(project):
    """Starting ahead starts one server, and kernels with the environment of this process come from it."""
    warm_kernels = WarmKernels()
    before = {child.pid for child in psutil.Process().children()}
    warm_kernels.start_ahead()
    warm_kernels.start_ahead()
    [server] = {child.pid for child in psutil.Process().children()} - before
    path = project.notebook(
        "ahead", "import os, sys; print(os.getppid(), 'ipykernel.debugger' in sys.modules)"
    )
    assert printed(run(path, warm_kernels)).split() == [str(server), "True"]
    warm_kernels.close()
    wait_for_end(server)


def test_command_leaves_slow_imports_to_the_time_in_which_kernels_get_ready(project):
    """Until notebooks run, the command has imported nothing that takes long, and no compiler of grammars."""
    project.notebook("one", "1")
    code = (
        "import sys; from pathlib import Path; from research_kit.cli import main\n"
        "main(['test', '--list', '--project', sys.argv[1]])\n"
        "slow = {'jsonschema', 'lark', 'nbformat', 'nbval', 'papermill'} & set(sys.modules)\n"
        "import jsonschema; print(sorted(slow), 'lark' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(project.root)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[] False"


def test_dead_server_is_replaced_by_starting_kernels(project):
    """When the process that kernels are forked from dies, kernels are started in the usual way."""
    warm_kernels = WarmKernels()
    path = project.notebook("parent", "import os; print(os.getppid())")
    os.kill(int(printed(run(path, warm_kernels))), signal.SIGKILL)
    done = run(path, warm_kernels)
    assert (done.outcome, int(printed(done))) == ("passed", os.getpid())
    warm_kernels.close()


def test_nothing_is_left_when_the_run_is_killed(project):
    """A killed test run takes the server and the kernels that run with it."""
    path = project.notebook(
        "long",
        "import os, pathlib, time\npathlib.Path('pids').write_text(f'{os.getpid()} {os.getppid()}')",
        "time.sleep(600)",
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from research_kit.regression.run import RunOptions, execute_run\n"
        "from research_kit.regression.warm_kernels import WarmKernels\n"
        "path = Path(sys.argv[1])\n"
        "limits = {'cell_timeout_s': 600, 'notebook_timeout_s': 600}\n"
        "options = RunOptions(parameters={}, warm_kernels=WarmKernels(), **limits)\n"
        "execute_run(path, path.with_suffix('.out.ipynb'), options)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL) as process:
        pids = path.with_name("pids")
        deadline = time.monotonic() + 60
        while not (pids.exists() and len(pids.read_text().split()) == 2):
            assert time.monotonic() < deadline, "the kernel did not start"
            time.sleep(0.05)
        process.kill()
    wait_for_end(*map(int, pids.read_text().split()))


def test_find_imports_names_what_is_worth_importing_ahead(project):
    """Only modules known to be slow and safe are imported ahead, and only when a notebook imports them."""
    paths = [
        project.notebook("plots", "import matplotlib.pyplot as plt"),
        project.notebook("frames", "from pandas import DataFrame\nimport dspy"),
    ]
    assert find_imports([*paths, Path("missing.ipynb")]) == ("matplotlib.pyplot", "pandas")

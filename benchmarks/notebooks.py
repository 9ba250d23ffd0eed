"""Notebooks as tests: the same notebooks with nbval, nbmake, papermill and research-kit, and many in one run.

Each notebook has ten cells: it imports pandas, sums up a table, draws a plot and shows a progress bar.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil

from benchmarks.measuring import Options, Row

_CELLS = (
    "import pandas as pd\nimport matplotlib.pyplot as plt\nfrom tqdm import tqdm",
    "number, x = {number}, range(100)\nframe = pd.DataFrame({{'x': x, 'y': [number * n % 17 for n in x]}})",
    "frame.head()",
    "frame.describe()",
    "print('mean', frame['y'].mean())",
    "for _ in tqdm(range(50)):\n    pass",
    "frame.groupby('y').size()",
    "frame.plot(x='x', y='y')\nplt.show()",
    "frame['z'] = frame['x'] ** 2\nframe['z'].sum()",
    "print('done', number)",
)
_PAPERMILL = (
    "import sys, papermill\nfrom pathlib import Path\n"
    "for path in sorted(Path('notebooks').glob('*.ipynb')):\n"
    "    papermill.execute_notebook(str(path), f'out/{path.name}', cwd='notebooks', progress_bar=False)\n"
)
_FLOOR = (
    "import sys\nfrom pathlib import Path\nimport nbformat\n"
    "from IPython.core.interactiveshell import InteractiveShell\n"
    "import matplotlib; matplotlib.use('agg')\n"
    "for path in sorted(Path('notebooks').glob('*.ipynb'))[int(sys.argv[1])::2]:\n"
    "    shell = InteractiveShell()\n"
    "    for cell in nbformat.read(path, as_version=4).cells:\n"
    "        shell.run_cell(cell.source).raise_error()\n"
)
_DEADLINE_S = 1800
_LOOK_S = 1.0


class _Peak(NamedTuple):
    took_s: float
    rss_bytes: int
    left_count: int


def measure(options: Options) -> list[Row]:
    """Return the seconds of each runner, and what many notebooks in one run take."""
    count = 4 if options.is_quick else 20
    folder = make_project(options.folder / "some", count)
    ours = [sys.executable, "-m", "research_kit.cli", "test", "--workers", "2"]
    _run([*ours, "--accept"], folder)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:schemathesis"]
    commands = {
        "papermill, one after the other": [sys.executable, "-c", _PAPERMILL],
        "nbval": [*pytest, "--nbval-lax", "notebooks"],
        "nbval -n 2": [*pytest, "--nbval-lax", "-n", "2", "--dist", "loadscope", "notebooks"],
        "nbmake -n 2": [*pytest, "-p", "no:nbval", "--nbmake", "-n", "2", "notebooks"],
        "research-kit, started kernels": ours,
        "research-kit": [*ours, "--html", "out/page.html", "--junit-xml", "out/junit.xml"],
    }
    times: dict[str, float] = {}
    for name, command in commands.items():
        if name == "research-kit, started kernels":
            _configure(folder, "warm_kernels = false\n")
        times[name] = _run(command, folder).took_s
        _configure(folder)
    times["floor: the cells alone, two processes"] = _floor(folder)
    return [*_rows(times, count), *_many(options, ours)]


def make_project(folder: Path, count: int) -> Path:
    """Write ``count`` notebooks and their plan; return the folder."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "out").mkdir()
    for number in range(count):
        cells = [
            nbformat.v4.new_code_cell(source.format(number=number), id=f"cell-{place}")
            for place, source in enumerate(_CELLS)
        ]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=metadata),
            folder / "notebooks" / f"n{number:03}.ipynb",
        )
    _configure(folder)
    return folder


def _configure(folder: Path, more: str = "") -> None:
    table = '[tool.research_kit.regression]\nnotebooks = ["notebooks/*.ipynb"]\nexpected_dir = "expected"\n'
    (folder / "pyproject.toml").write_text(table + more, encoding="utf-8")


def _rows(times: Mapping[str, float], count: int) -> list[Row]:
    ours = times["research-kit"]
    goals = {
        "papermill, one after the other": 1 / 5,
        "nbval -n 2": 1 / 2.8,
        "floor: the cells alone, two processes": 1.6,
    }
    rows = [Row(name=f"{count} notebooks, {name}", value=took, unit="s") for name, took in times.items()]
    rows += [
        Row(
            name="research-kit",
            value=ours,
            unit="s",
            ratio=ours / took,
            against=name,
            goal=goals.get(name),
            goal_of="ratio",
        )
        for name, took in times.items()
        if name != "research-kit"
    ]
    return rows


def _many(options: Options, ours: Sequence[str]) -> list[Row]:
    """Return how the memory of a run grows with the number of notebooks, and what it leaves running."""
    few, many = (8, 16) if options.is_quick else (20, 200)
    small = _run(ours, make_project(options.folder / "few", few))
    large = _run(ours, make_project(options.folder / "many", many))
    return [
        Row(name=f"{many} notebooks, research-kit", value=large.took_s, unit="s"),
        Row(
            name=f"{many} notebooks, memory of the runner",
            value=large.rss_bytes / 1e6,
            unit="MB",
            ratio=large.rss_bytes / small.rss_bytes,
            against=f"{few} notebooks",
            goal=1.2,
            goal_of="ratio",
        ),
        Row(
            name=f"{many} notebooks, processes left",
            value=large.left_count,
            unit="",
            goal=0,
        ),
    ]


def _run(command: Sequence[str], folder: Path) -> _Peak:
    foreign = ("RESEARCH_KIT_", "LANGFUSE_", "GITHUB_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ["RESEARCH_KIT_DATA_DIR"] = str(folder / "data")
    begin_s, peak, seen = time.monotonic(), 0, set()
    with (folder / "out" / "told.txt").open("w") as told:
        process = psutil.Popen(command, cwd=folder, env=environ, stdout=told, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _rss(process))
            seen.update(_children(process))
            if time.monotonic() - begin_s > _DEADLINE_S:
                process.kill()
            # A look at all processes takes time that the measured ones would need.
            with suppress(psutil.TimeoutExpired):
                process.wait(_LOOK_S)
    took_s = time.monotonic() - begin_s
    if process.returncode:
        told_text = (folder / "out" / "told.txt").read_text()[-2000:]
        raise RuntimeError(f"{command} ended with {process.returncode}: {told_text}")
    return _Peak(took_s, peak, len(_left(seen)))


def _left(seen: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that are still there after a moment; who has ended and was not asked about is not."""
    _, alive = psutil.wait_procs(seen, timeout=_LOOK_S)
    return [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def _floor(folder: Path) -> float:
    begin_s = time.monotonic()
    commands = [[sys.executable, "-c", _FLOOR, str(half)] for half in range(2)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, cwd=folder, **quiet) for command in commands]
    codes = [process.wait(_DEADLINE_S) for process in processes]
    if any(codes):
        raise RuntimeError(f"the cells alone ended with {codes}")
    return time.monotonic() - begin_s


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []

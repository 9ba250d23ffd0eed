"""What all benchmarks share: rows, processes measured from outside, a server that takes everything.

Owns how CPU and time are taken. Invariant: what is measured runs in a process of its own, without the
researcher's settings and keys, and writes to a temporary folder only.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

ROOT = Path(__file__).parents[1]
KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-bench", "LANGFUSE_SECRET_KEY": "sk-lf-bench"}

_SETTING_PREFIXES = ("LANGFUSE_", "RESEARCH_KIT_", "OTEL_", "COVERAGE_", "PYTEST_")
_DEADLINE_S = 180.0
_INSTALL_DEADLINE_S = 900
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured.
        value: The median.
        unit: Unit of ``value``.
        against: What ``ratio`` compares with.
        ratio: ``value`` divided by the same figure of ``against``.
        goal: What the figure may be at most.
        goal_of: Which of the two figures the goal is about.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    goal: float | None = None
    goal_of: Literal["value", "ratio"] = "value"

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        figure = self.value if self.goal_of == "value" else self.ratio
        return None if self.goal is None or figure is None else figure <= self.goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thoroughly to measure.

    Attributes:
        repeat_count: Runs of which the median is taken.
        is_quick: Measure with fewer and smaller runs.
        folder: For everything that is written.
    """

    repeat_count: int
    is_quick: bool
    folder: Path

    def environment(self, name: str, **settings: str) -> dict[str, str]:
        """Return an environment without the researcher's settings, with folders of its own under ``name``."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_SETTING_PREFIXES)}
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "RESEARCH_KIT_DATA_DIR": str(folder / "data"),
            "RESEARCH_KIT_CACHE_DIR": str(folder / "cache"),
            "IPYTHONDIR": str(folder / "ipython"),
            **settings,
        }


class ProcessRun(NamedTuple):
    """One run of a process.

    Attributes:
        wall_s: From start to end.
        cpu_s: User and system time of all its threads, and of the processes that it waited for.
        exit_s: From the moment that the process wrote down with `note_end` until its end.
        noted_s: What it printed before that; 0 when nothing.
        printed_lines: Lines on its standard error.
    """

    wall_s: float
    cpu_s: float
    exit_s: float
    noted_s: float
    printed_lines: int


def note_end() -> None:
    """Write down, in the measured process, that its work is over and its exit begins."""
    # The clock is one for all processes of the machine.
    sys.stdout.write(f"{time.monotonic()}\n")
    sys.stdout.flush()


def run_python(arguments: Sequence[str], environment: Mapping[str, str], cwd: Path) -> ProcessRun:
    """Run Python with ``arguments`` and measure it from outside.

    Raises:
        RuntimeError: When it fails.
    """
    printed_path, output_path = cwd / "stderr.txt", cwd / "stdout.txt"
    with printed_path.open("wb") as printed, output_path.open("wb") as output:
        begin_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, cwd=cwd, stdout=output, stderr=printed
        )
        # wait4, because getrusage(RUSAGE_CHILDREN) would add up all children of this process.
        _, status, usage = os.wait4(process.pid, 0)
        end_s = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{printed_path.read_text()[-2000:]}")
    noted = [float(line) for line in output_path.read_text().split()]
    return ProcessRun(
        wall_s=end_s - begin_s,
        cpu_s=_cpu_s(usage),
        exit_s=end_s - noted[-1] if noted else 0.0,
        noted_s=noted[-2] if len(noted) > 1 else 0.0,
        printed_lines=len(printed_path.read_text().splitlines()),
    )


def run_interleaved(
    ways: Iterable[_Key], repeat_count: int, run: Callable[[_Key], ProcessRun]
) -> dict[_Key, list[ProcessRun]]:
    """Run every way ``repeat_count`` times, in turn, so that a busy minute does not hit one of them alone."""
    ways = list(ways)
    runs: dict[_Key, list[ProcessRun]] = {way: [] for way in ways}
    for _ in range(repeat_count):
        for way in ways:
            runs[way].append(run(way))
    return runs


def peers_python(folder: str, packages: Sequence[str]) -> Path | None:
    """Return the Python of an environment with ``packages``, made when it is first needed.

    None, and a line that says why, when they cannot be installed here.
    """
    place = ROOT / ".research_kit" / folder
    python, ready = place / "bin" / "python", place / ".ready"
    if ready.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True, capture_output=True, timeout=_INSTALL_DEADLINE_S)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stdout.write(f"{folder}: {', '.join(packages)} cannot be installed here ({error})\n")
        return None
    ready.touch()
    return python


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


@contextmanager
def null_server() -> Iterator[str]:
    """Run `benchmarks.null_server` in a process of its own, and yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.null_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def take_span_count(base_url: str) -> int:
    """Return how many spans the null server was given since this was asked last."""
    with urllib.request.urlopen(f"{base_url}/count", timeout=_DEADLINE_S) as answer:
        return int(answer.read())


def _cpu_s(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime

"""What importing and loading the extension add: to bare Python, and to a fresh IPython shell."""

from __future__ import annotations

from benchmarks.measuring import KEYS, Options, ProcessRun, Row, median, run_interleaved, run_python

_GOAL_IMPORT_S = 0.05
_GOAL_LOAD_S = 0.3
_SHELL = "from IPython.core.interactiveshell import InteractiveShell as S; shell = S.instance()"
_PROGRAMS = {
    "python": "pass",
    "research_kit": "import research_kit",
    "langfuse": "import langfuse",
    "shell": _SHELL,
    "extension": f"{_SHELL}; shell.run_line_magic('load_ext', 'research_kit')",
    "extension, one cell": (
        f"{_SHELL}; shell.run_line_magic('load_ext', 'research_kit'); shell.run_cell('x = 1 + 1')"
    ),
    "shell, one cell": f"{_SHELL}; shell.run_cell('x = 1 + 1')",
}


def measure(options: Options) -> list[Row]:
    """Return the added times, in CPU and in wall seconds."""
    environment = options.environment("imports", **KEYS)
    runs = run_interleaved(
        _PROGRAMS,
        3 * options.repeat_count,
        lambda name: run_python(["-c", _PROGRAMS[name]], environment, options.folder),
    )
    # On a busy machine the wall time of a process is the others' too, so goals are about CPU time.
    return [
        *_rows("import research_kit", runs["research_kit"], runs["python"], "bare Python", _GOAL_IMPORT_S),
        *_rows("import langfuse", runs["langfuse"], runs["python"], "bare Python", None),
        *_rows("%load_ext research_kit", runs["extension"], runs["shell"], "the same shell", _GOAL_LOAD_S),
        *_rows(
            "%load_ext and a first cell",
            runs["extension, one cell"],
            runs["shell, one cell"],
            "the same shell",
            _GOAL_LOAD_S,
        ),
    ]


def _rows(
    name: str, runs: list[ProcessRun], bare_runs: list[ProcessRun], against: str, goal_s: float | None
) -> list[Row]:
    cpu_s, bare_cpu_s = (median(run.cpu_s for run in some) for some in (runs, bare_runs))
    wall_s, bare_wall_s = (median(run.wall_s for run in some) for some in (runs, bare_runs))
    return [
        Row(
            name=f"{name}, added",
            value=cpu_s - bare_cpu_s,
            unit="CPU s",
            against=against,
            ratio=cpu_s / bare_cpu_s,
            goal=goal_s,
        ),
        Row(
            name=f"{name}, added",
            value=wall_s - bare_wall_s,
            unit="s",
            against=against,
            ratio=wall_s / bare_wall_s,
        ),
    ]

"""Run the benchmarks, print one table, and write ``.research_kit/bench.json``.

Run with ``make bench`` or ``python -m benchmarks.run [names] [--quick]``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks.measuring import ROOT, Options, Row

_BENCHMARKS = {
    "imports": "import_time",
    "spans": "span_cost",
    "coverage": "coverage",
    "masking": "masking_speed",
    "exit": "exit_time",
    "reading": "reading",
    "store": "store_speed",
    "panel": "panel_speed",
    "page": "panel_page",
    "peers": "peers",
    "notebooks": "notebooks",
}
_PACKAGES = ("jupyter-research-kit", "langfuse", "opentelemetry-sdk", "pandas", "ipython")
_HEADINGS = ("", "median", "unit", "ratio", "against", "goal", "reached")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; with ``--check``, 1 when a goal is missed."""
    chosen = _parse(arguments)
    results: dict[str, list[Row]] = {}
    begin = datetime.now(UTC)
    for name in chosen.names or _BENCHMARKS:
        measure: Callable[[Options], list[Row]] = import_module(f"benchmarks.{_BENCHMARKS[name]}").measure
        begin_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="research-kit-bench-") as folder:
            results[name] = measure(
                Options(repeat_count=chosen.repeats, is_quick=chosen.quick, folder=Path(folder))
            )
        _tell(f"{name}: measured in {time.monotonic() - begin_s:.0f} s")
    _tell("")
    _tell(format_table(results))
    _tell(f"\nLoad of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    written = write_json(results, begin, chosen.repeats, path=chosen.json)
    _tell(f"Written: {written}")
    return int(chosen.check and any(row.is_reached is False for rows in results.values() for row in rows))


def format_table(results: dict[str, list[Row]]) -> str:
    """Return all rows as one aligned table."""
    lines: list[Sequence[str]] = [_HEADINGS]
    for name, rows in results.items():
        lines.append((f"[{name}]", *[""] * (len(_HEADINGS) - 1)))
        lines += [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    is_number = (False, True, False, True, False, True, False)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in lines
    )


def write_json(results: dict[str, list[Row]], begin: datetime, repeat_count: int, *, path: Path) -> Path:
    """Write the rows and the circumstances, and return the file."""
    content = {
        "start_time": begin.isoformat(),
        "repeat_count": repeat_count,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": {package: version(package) for package in _PACKAGES},
        "rows": [
            {"benchmark": name, **asdict(row), "is_reached": row.is_reached}
            for name, rows in results.items()
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _cells(row: Row) -> tuple[str, ...]:
    goal = "" if row.goal is None else f"<= {row.goal:g}{' x' if row.goal_of == 'ratio' else ''}"
    reached = {True: "yes", False: "NO", None: ""}[row.is_reached]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    return (f"  {row.name}", _number(row.value), row.unit, ratio, row.against, goal, reached)


def _number(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(_BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="smaller runs, one of each")
    parser.add_argument("--repeats", type=int, help="runs of which the median is taken (default 5)")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    parser.add_argument(
        "--json", type=Path, default=ROOT / ".research_kit" / "bench.json", help="result file"
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in _BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(_BENCHMARKS)}")
    if chosen.repeats is None:
        chosen.repeats = 1 if chosen.quick else 5
    return chosen


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

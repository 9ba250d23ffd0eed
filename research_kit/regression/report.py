"""What a person reads when a notebook fails.

Owns the text; decides nothing. Invariant: the text names the notebook, the cell with its source, what was
wrong, and where the executed copy is.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from research_kit.regression.check import Check
from research_kit.regression.compare import Difference
from research_kit.regression.run import CellError

__all__ = ["format_check"]

_SOURCE_LINE_COUNT = 20
# Another form of the same value says nothing new once the plain text is shown.
_PLAIN = "text/plain"


def format_check(check: Check, *, root: Path | None = None) -> str:
    """Describe why ``check`` failed.

    Args:
        check: A check that did not pass.
        root: The folder that paths are shown relative to.
    """
    run = check.run
    name = _relative(check.planned.path, root)
    if check.planned.set_name is not None:
        name = f"{name} [{check.planned.set_name}]"
    if run.outcome != "passed":
        lines = [f"{run.outcome.replace('_', ' ')}: {run.message}"]
        if run.error is not None:
            lines += ["", *_format_error(name, run.error)]
    else:
        lines = _describe_traces(check)
        lines += [f"outputs differ from {_describe_expected(check, root)}"] if check.differences else []
        for _, found in groupby(check.differences, key=lambda difference: difference.cell_index):
            lines += ["", *_format_cell(name, list(found))]
    lines += [""]
    if run.session_url is not None:
        lines += [f"Traces: {run.session_url}"]
    if run.output_path.exists():
        lines += [f"Executed copy: {_relative(run.output_path, root)}"]
    if check.differences:
        lines += [f"If the new outputs are right: pytest {_relative(check.planned.path, root)} --rk-accept"]
    return "\n".join(lines)


def _describe_traces(check: Check) -> list[str]:
    if not check.trace_problems:
        return []
    return [
        "what it did is not as expected",
        *(f"  {line}" for one in check.trace_problems for line in one.splitlines()),
    ]


def _describe_expected(check: Check, root: Path | None) -> str:
    if check.expected_from == "own outputs" or check.expected_path is None:
        return "those saved in the notebook"
    return f"the baseline {_relative(check.expected_path, root)}"


def _format_error(name: str, error: CellError) -> list[str]:
    lines = [_heading(name, error.cell_index, error.execution_count), *_quote(error.source)]
    return [*lines, "", error.traceback.rstrip()] if error.traceback else lines


def _format_cell(name: str, differences: list[Difference]) -> list[str]:
    first = differences[0]
    lines = [_heading(name, first.cell_index, first.execution_count), *_quote(first.source)]
    keys = [difference.output_key for difference in differences]
    folded = [key for key in keys if _PLAIN in keys and key.startswith(("text/html", "text/latex"))]
    for difference in differences:
        if difference.output_key not in folded:
            lines += ["", f"{difference.output_key}:", difference.diff]
    if folded:
        lines += ["", f"(also different: {', '.join(folded)})"]
    return lines


def _heading(name: str, cell_index: int, execution_count: int | None) -> str:
    bracket = "In [ ]" if execution_count is None else f"In [{execution_count}]"
    return f"{name}, {bracket}, cell {cell_index + 1} of the notebook:"


def _quote(source: str) -> list[str]:
    lines = source.splitlines() or ["(empty)"]
    if len(lines) > _SOURCE_LINE_COUNT:
        lines = [*lines[:_SOURCE_LINE_COUNT], f"... {len(lines) - _SOURCE_LINE_COUNT} more lines"]
    return [f"    {line}" for line in lines]


def _relative(path: Path, root: Path | None) -> str:
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)

"""What a person reads when a notebook fails.

Owns the text; decides nothing. Invariant: the text names the notebook, the cell with its source, what was
wrong, and where the executed copy and the traces are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research_kit.regression.check import Check
    from research_kit.regression.compare import Difference

__all__ = ["CellText", "describe_cells", "describe_problem", "format_check"]

_SOURCE_LINE_COUNT = 20
# Another form of the same value says nothing new once the plain text is shown.
_PLAIN = "text/plain"
_OTHER_FORMS = ("text/html", "text/latex", "text/markdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellText:
    """One cell to look at.

    Attributes:
        heading: Where it is.
        cell_index: Its position, from 0.
        source: Its source.
        details: Title and text of each thing to be said about it.
        image: A picture of the difference, as a PNG in base64; empty without one.
    """

    heading: str
    cell_index: int
    source: str
    details: tuple[tuple[str, str], ...]
    image: str = ""


def format_check(check: Check, *, root: Path | None = None) -> str:
    """Describe why ``check`` failed.

    Args:
        check: A check that did not pass.
        root: The folder that paths are shown relative to.
    """
    name = check.planned.place(root)
    if check.planned.set_name is not None:
        name = f"{name} [{check.planned.set_name}]"
    lines = [describe_problem(check, root=root)]
    lines += [f"  {line}" for problem in check.trace_problems for line in problem.splitlines()]
    for cell in describe_cells(check):
        lines += ["", f"{name}, {cell.heading}:", *_quote(cell.source)]
        for title, text in cell.details:
            lines += ["", *([f"{title}:"] if title else []), text]
    return "\n".join([*lines, *_places(check, root)])


def describe_problem(check: Check, *, root: Path | None = None) -> str:
    """Return in one line why ``check`` did not pass; empty when it did."""
    run = check.run
    if run.outcome != "passed":
        return f"{run.outcome.replace('_', ' ')}: {run.message}"
    if check.is_passed:
        return ""
    parts = ["what it did is not as expected"] if check.trace_problems else []
    if check.differences:
        parts.append(f"outputs differ from {_describe_expected(check, root)}")
    return "; ".join(parts)


def describe_cells(check: Check) -> list[CellText]:
    """Return the cells to look at: the one that failed, or those whose outputs differ."""
    error = check.run.error
    if check.run.outcome != "passed":
        if error is None:
            return []
        details = [("", error.traceback.rstrip())] if error.traceback else []
        if error.last_output:
            details.insert(0, ("last output", error.last_output))
        return [
            CellText(
                heading=_heading(error.cell_index, error.execution_count),
                cell_index=error.cell_index,
                source=error.source,
                details=tuple(details),
            )
        ]
    by_cell = groupby(check.differences, key=lambda difference: difference.cell_index)
    return [_describe_differences(list(found)) for _, found in by_cell]


def _describe_differences(differences: Sequence[Difference]) -> CellText:
    first = differences[0]
    keys = [difference.output_key for difference in differences]
    folded = [key for key in keys if _PLAIN in keys and key.startswith(_OTHER_FORMS)]
    details = [(one.output_key, one.diff) for one in differences if one.output_key not in folded]
    if folded:
        details.append(("", f"(also different: {', '.join(folded)})"))
    return CellText(
        heading=_heading(first.cell_index, first.execution_count),
        cell_index=first.cell_index,
        source=first.source,
        details=tuple(details),
        image=next((one.image for one in differences if one.image), ""),
    )


def _places(check: Check, root: Path | None) -> list[str]:
    run, lines = check.run, [""]
    if run.session_url is not None:
        lines += [f"Traces: {run.session_url}"]
    if run.output_path.exists():
        lines += [f"Executed copy: {_relative(run.output_path, root)}"]
    if run.sent_to is not None:
        lines += [f"Sent to: {run.sent_to}"]
    if check.differences:
        command = (
            f"research-kit test {check.planned.name} --accept"
            if check.planned.address
            else f"pytest {check.planned.place(root)} --rk-accept"
        )
        lines += [f"If the new outputs are right: {command}"]
    return lines if len(lines) > 1 else []


def _describe_expected(check: Check, root: Path | None) -> str:
    if check.expected_from == "own outputs" or check.expected_path is None:
        return "those saved in the notebook"
    return f"the baseline {_relative(check.expected_path, root)}"


def _heading(cell_index: int, execution_count: int | None) -> str:
    bracket = "In [ ]" if execution_count is None else f"In [{execution_count}]"
    return f"{bracket}, cell {cell_index + 1} of the notebook"


def _quote(source: str) -> list[str]:
    lines = source.splitlines() or ["(empty)"]
    if len(lines) > _SOURCE_LINE_COUNT:
        lines = [*lines[:_SOURCE_LINE_COUNT], f"... {len(lines) - _SOURCE_LINE_COUNT} more lines"]
    return [f"    {line}" for line in lines]


def _relative(path: Path, root: Path | None) -> str:
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)

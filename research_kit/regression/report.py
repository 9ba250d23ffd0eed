"""What is to be said about a run: why it did not pass, and the cells to look at.

Owns the wording; decides nothing, and knows no form of report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit.regression.shown_text import shown_block, shown_line

if TYPE_CHECKING:
    from research_kit.regression.check import Check
    from research_kit.regression.compare import Difference

__all__ = ["CellText", "describe_cells", "describe_problem"]

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

    def __post_init__(self) -> None:
        """Make the texts fit to be shown."""
        object.__setattr__(self, "heading", shown_line(self.heading))
        object.__setattr__(self, "source", shown_block(self.source))
        details = tuple((shown_line(title), shown_block(text)) for title, text in self.details)
        object.__setattr__(self, "details", details)


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


def _describe_expected(check: Check, root: Path | None) -> str:
    if check.expected_from == "own outputs" or check.expected_path is None:
        return "those saved in the notebook"
    return f"the baseline {_relative(check.expected_path, root)}"


def _heading(cell_index: int, execution_count: int | None) -> str:
    bracket = "In [ ]" if execution_count is None else f"In [{execution_count}]"
    return f"{bracket}, cell {cell_index + 1} of the notebook"


def _relative(path: Path, root: Path | None) -> str:
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)

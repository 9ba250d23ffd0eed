"""The accepted outputs of notebooks.

Owns the files in ``expected_dir`` and the rule which expectation applies: the baseline file, else the
notebook's own outputs, else none. Does not compare. Invariant: accepting two runs that differ only in what
is sanitized writes the same bytes, so a baseline changes in version control only when an output did. No
secret that masking knows is in one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

from research_kit.errors import ConfigError
from research_kit.masking import masked_text
from research_kit.regression.cells import INJECTED_TAG, read_options, read_tags
from research_kit.regression.compare import SKIPPED_KEYS
from research_kit.regression.documents import format_notebook, read_notebook
from research_kit.regression.images import IMAGE_KEYS, reduce_image
from research_kit.regression.large import shorten
from research_kit.regression.plan import NotebookPlan
from research_kit.regression.sanitize import Sanitizer, sanitize_value

__all__ = ["Expectation", "find_expectation", "write_baseline"]

Kind = Literal["baseline", "own outputs", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the outputs of a run are compared with.

    Attributes:
        kind: ``baseline``, ``own outputs`` (those saved in the notebook itself) or ``none``.
        path: The file it was read from; None when there is no expectation.
        notebook: The notebook with the expected outputs; None when there is no expectation.
    """

    kind: Kind
    path: Path | None
    notebook: NotebookNode | None


def find_expectation(planned: NotebookPlan) -> Expectation:
    """Return what a run of ``planned`` is compared with.

    Raises:
        ConfigError: When the baseline or the notebook cannot be read.
    """
    for path in (planned.baseline_path, planned.baseline_path.with_suffix(".ipynb")):
        # `expected_dir` may be the folder of the notebooks; a notebook is not its own baseline.
        if path.exists() and path.resolve() != planned.path.resolve():
            return Expectation(kind="baseline", path=path, notebook=_read_baseline(path))
    notebook = read_notebook(planned.path)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in code_cells):
        return Expectation(kind="none", path=None, notebook=None)
    for cell in code_cells:
        # As in nbval: what was never run in the saved notebook is not expected to have no outputs.
        if cell.execution_count is None:
            cell.metadata["tags"] = [*read_tags(cell), "rk-ignore-output"]
    return Expectation(kind="own outputs", path=planned.path, notebook=notebook)


def write_baseline(
    executed: NotebookNode,
    planned: NotebookPlan,
    *,
    sanitizers: Sequence[Sanitizer],
    keeps_images: bool = False,
) -> Path:
    """Write the outputs of ``executed`` as the accepted ones; return the file.

    Args:
        executed: The notebook of a run that passed.
        planned: Says where the baseline is.
        sanitizers: What is replaced first.
        keeps_images: Whether pictures are kept, in a reduced form.

    Raises:
        ConfigError: When the file cannot be written.
    """
    cells = [
        _reduce_cell(cell, sanitizers, keeps_images)
        for cell in executed.cells
        if cell.cell_type == "code" and INJECTED_TAG not in read_tags(cell)
    ]
    path = planned.baseline_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(format_notebook(cells), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write the baseline {str(path)!r}: {error.strerror}. "
            "Correct expected_dir or its permissions."
        ) from error
    return path


def _read_baseline(path: Path) -> NotebookNode:
    try:
        return read_notebook(path)
    except ConfigError as error:
        raise ConfigError(
            f"Cannot use the baseline {str(path)!r}. {error} "
            "Or delete it and accept the outputs again (--rk-accept)."
        ) from error


def _reduce_cell(cell: NotebookNode, sanitizers: Sequence[Sanitizer], keeps_images: bool) -> dict[str, Any]:
    is_compared = read_options(cell).is_compared
    outputs = coalesce_streams(cell.outputs) if is_compared else []
    return {
        "id": cell.id,
        "source": masked_text(cell.source),
        "outputs": [_reduce_output(output, sanitizers, keeps_images) for output in outputs],
        "metadata": {} if is_compared else {"tags": ["rk-ignore-output"]},
    }


def _reduce_output(output: NotebookNode, sanitizers: Sequence[Sanitizer], keeps_images: bool) -> NotebookNode:
    """Keep what is compared, and what nbformat requires beside it."""
    reduced = copy.copy(output)
    if "data" in output:
        kept = {key: value for key, value in output.data.items() if key not in SKIPPED_KEYS}
        reduced.data = {key: _sanitize(value, sanitizers) for key, value in kept.items()}
        if keeps_images:
            reduced.data.update(
                {key: reduce_image(output.data[key]) for key in IMAGE_KEYS if key in output.data}
            )
        reduced.metadata = {}
    if "execution_count" in output:
        reduced.execution_count = None
    if output.output_type == "error":
        reduced.traceback = []
    for key in ("text", "evalue"):
        if key in output:
            reduced[key] = _sanitize(output[key], sanitizers)
    return reduced


def _sanitize(value: Any, sanitizers: Sequence[Sanitizer]) -> Any:
    sanitized = sanitize_value(value, sanitizers)
    return shorten(sanitized) if isinstance(sanitized, str) else sanitized

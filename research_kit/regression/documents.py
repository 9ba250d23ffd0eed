"""Notebook files in and out.

Owns the reading of notebooks with errors that help, and the few constructors of nbformat that the other
modules need. Invariant: `read_notebook` returns a notebook of nbformat 4 or raises `ConfigError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from research_kit.errors import ConfigError

__all__ = ["format_notebook", "read_notebook"]

_SAVE_AGAIN = "Save it again with Jupyter"


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook as nbformat 4.

    Raises:
        ConfigError: When the file is missing, is not JSON, or is not a notebook.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(_unreadable(path, error.strerror or str(error), "Correct the path")) from error
    except ValueError as error:
        remedy = "Look for conflict markers and repair the file, or restore it"
        raise ConfigError(_unreadable(path, f"it is not valid JSON ({error})", remedy)) from error
    if not _is_notebook(document):
        cause = (
            "it is JSON, but not a notebook (nbformat, metadata, or the type or source of a cell, is missing)"
        )
        raise ConfigError(_unreadable(path, cause, _SAVE_AGAIN))
    try:
        notebook: NotebookNode = nbformat.reads(json.dumps(document), as_version=4)  # type: ignore[no-untyped-call]
    except (nbformat.ValidationError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(_unreadable(path, f"nbformat refuses it ({first_line})", _SAVE_AGAIN)) from error
    return notebook


def format_notebook(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a notebook with these code cells (id, source, outputs, metadata)."""
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[nbformat.v4.new_code_cell(**cell) for cell in cells]  # type: ignore[no-untyped-call]
    )
    return f"{nbformat.writes(notebook)}\n"  # type: ignore[no-untyped-call]


def _is_notebook(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("nbformat"), int):
        return False
    if document["nbformat"] < 4:
        return isinstance(document.get("worksheets"), list)
    cells, metadata = document.get("cells"), document.get("metadata")
    return isinstance(cells, list) and isinstance(metadata, dict) and all(map(_is_cell, cells))


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return False
    return isinstance(cell.get("source"), str | list) and isinstance(cell.get("metadata", {}), dict)


def _unreadable(path: Path, cause: str, remedy: str) -> str:
    return f"Cannot read the notebook {str(path)!r}: {cause}. {remedy}."

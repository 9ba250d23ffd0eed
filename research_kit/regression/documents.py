"""Notebook files in and out.

Owns the reading of notebooks with errors that help, and the few constructors of nbformat that the other
modules need. Invariant: a notebook that is read is one of nbformat 4, or `ConfigError` is raised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from research_kit.errors import ConfigError

__all__ = ["format_notebook", "parse_notebook", "read_notebook"]

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SAVE_AGAIN = "Save it again with Jupyter"


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook as nbformat 4.

    Raises:
        ConfigError: When the file is missing, is not JSON, or is not a notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(_unreadable(str(path), error.strerror or str(error), "Correct the path")) from error
    except UnicodeDecodeError as error:
        raise _no_json(str(path), error) from error
    return parse_notebook(text, str(path))


def parse_notebook(text: str, name: str) -> NotebookNode:
    """Return the notebook of nbformat 4 that ``text`` is.

    Args:
        text: JSON.
        name: Where it is from, for messages.

    Raises:
        ConfigError: When it is not JSON, or is not a notebook.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _no_json(name, error) from error
    if _SURROGATE.search(text) and not _is_encodable(document):
        remedy = "Correct the text, which was cut within a character"
        raise ConfigError(_unreadable(name, "it has half a character, which no file can hold", remedy))
    if not _is_notebook(document):
        cause = (
            "it is JSON, but not a notebook (nbformat, metadata, or the type or source of a cell, is missing)"
        )
        raise ConfigError(_unreadable(name, cause, _SAVE_AGAIN))
    for cell in document.get("cells", ()):
        # nbformat makes another one, and would quote this in a warning.
        if "id" in cell and not _CELL_ID.fullmatch(str(cell["id"])):
            del cell["id"]
    try:
        notebook: NotebookNode = nbformat.reads(json.dumps(document), as_version=4)  # type: ignore[no-untyped-call]
    except (nbformat.ValidationError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(_unreadable(name, f"nbformat refuses it ({first_line})", _SAVE_AGAIN)) from error
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


def _is_encodable(document: object) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return False
    return isinstance(cell.get("source"), str | list) and isinstance(cell.get("metadata", {}), dict)


def _no_json(name: str, error: ValueError) -> ConfigError:
    remedy = "Look for conflict markers and repair the file, or restore it"
    return ConfigError(_unreadable(name, f"it is not valid JSON ({error})", remedy))


def _unreadable(name: str, cause: str, remedy: str) -> str:
    return f"Cannot read the notebook {name!r}: {cause}. {remedy}."

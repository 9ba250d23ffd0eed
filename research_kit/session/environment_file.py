"""The ``.env`` file beside the notebook.

Owns which names of it count; the settings themselves are read elsewhere. Invariant: a variable that is set
already stays as it is, and names of other programs are not touched.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

from research_kit.errors import ConfigError
from research_kit.session.facts import notebook_path

__all__ = ["read_environment_file"]

_PREFIXES = ("LANGFUSE_", "RESEARCH_KIT_")


def read_environment_file() -> None:
    """Set the variables of Langfuse and of this package that ``.env`` names.

    It is looked for in the notebook's folder when Jupyter tells that, then in the working folder.

    Raises:
        ConfigError: When there is such a file and it cannot be read.
    """
    path = _find()
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"Cannot read {str(path)!r}: {error}. Make it a readable text file in UTF-8, or remove it."
        ) from error
    # Most files are of other programs' variables, and reading them costs a library.
    if not any(prefix in text for prefix in _PREFIXES):
        return
    from dotenv import dotenv_values

    # Lines that are none of ours may have any form; its warning about them would be printed into the cell.
    logging.getLogger("dotenv").addHandler(logging.NullHandler())
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if name.startswith(_PREFIXES) and value is not None and "\0" not in value:
            os.environ.setdefault(name, value)


def _find() -> Path | None:
    folders = [*_notebook_folder(), Path.cwd()]
    return next((path for folder in folders if (path := folder / ".env").is_file()), None)


def _notebook_folder() -> list[Path]:
    path = Path(notebook_path() or "")
    return [path.parent] if path.is_absolute() and path.parent.is_dir() else []

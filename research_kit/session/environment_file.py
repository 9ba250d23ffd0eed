"""The ``.env`` file beside the notebook.

Owns which names of it count; the settings themselves are read elsewhere. Invariant: a variable that is set
already stays as it is, and names of other programs are not touched.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["read_environment_file"]

_PREFIXES = ("LANGFUSE_", "RESEARCH_KIT_")


def read_environment_file(folder: Path | None = None) -> None:
    """Set the variables of Langfuse and of this package that ``.env`` in ``folder`` names.

    Args:
        folder: The notebook's folder; by default the working folder, which Jupyter sets to it.
    """
    path = (Path.cwd() if folder is None else folder) / ".env"
    if not path.is_file():
        return
    from dotenv import dotenv_values

    for name, value in dotenv_values(path).items():
        if name.startswith(_PREFIXES) and value is not None:
            os.environ.setdefault(name, value)

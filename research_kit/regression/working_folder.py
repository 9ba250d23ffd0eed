"""The folder that a notebook runs in: its own, or a temporary copy of it.

Invariant: what a notebook writes into a temporary folder is gone when the run is over.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from research_kit.errors import ConfigError

__all__ = ["working_folder"]

_IGNORED = shutil.ignore_patterns(".git", ".ipynb_checkpoints", ".research_kit", "__pycache__", "*.ipynb")


@contextmanager
def working_folder(folder: Path, *, is_temporary: bool) -> Iterator[Path]:
    """Yield ``folder``, or a copy of what a notebook in it may read, which is deleted afterwards.

    Raises:
        ConfigError: When the copy cannot be made.
    """
    if not is_temporary:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="rk-cwd-", ignore_cleanup_errors=True) as parent:
        copy = Path(parent) / folder.name
        try:
            shutil.copytree(folder, copy, ignore=_IGNORED, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise ConfigError(
                f"Cannot copy {str(folder)!r} for a notebook to run in: {error}. Set temporary_cwd = false."
            ) from error
        yield copy

"""The folder that a notebook runs in: its own, or a temporary copy of it.

Invariants: what a notebook writes into a temporary folder is gone when the run is over, and a file of
settings that somebody else can have written does not become the user's own by being copied.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from research_kit.errors import ConfigError
from research_kit.trust import read_own_file

__all__ = ["working_folder"]

_SETTINGS_FILES = frozenset({".env", ".mcp.json", "mcp.json"})
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
            shutil.copytree(folder, copy, ignore=_left_out, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise ConfigError(
                f"Cannot copy {str(folder)!r} for a notebook to run in: {error}. Set temporary_cwd = false."
            ) from error
        yield copy


def _left_out(folder: str, names: list[str]) -> set[str]:
    foreign = {name for name in _SETTINGS_FILES.intersection(names) if not _is_own(Path(folder, name))}
    return _IGNORED(folder, names) | foreign


def _is_own(path: Path) -> bool:
    try:
        read_own_file(path)
    except ConfigError:
        return False
    return True

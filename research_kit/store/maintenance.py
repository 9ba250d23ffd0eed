"""Care of the database file: copies and compaction, while the server runs or not.

Owns what is done to the file as a whole; knows no rows. Invariant: the database itself is only ever changed
by SQLite, in one transaction, and a copy appears under its name when it is complete.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from research_kit.errors import StoreError
from research_kit.store.state import StorePaths

__all__ = ["Vacuumed", "backup_store", "vacuum_store"]

_BUSY_TIMEOUT_S = 30.0


class Vacuumed(NamedTuple):
    """The size of the database before and after."""

    before_bytes: int
    after_bytes: int


def backup_store(data_dir: Path, target: Path) -> Path:
    """Copy the database as it is at this moment to ``target``, a file that does not exist yet.

    To use a copy, put it as ``store.db`` into a folder and set RESEARCH_KIT_DATA_DIR to that folder.

    Returns:
        The file that was written.

    Raises:
        StoreError: When there is no database, or ``target`` exists or cannot be written.
    """
    source = _existing_database(data_dir)
    target = target.absolute()
    if target.exists():
        raise StoreError(f"Cannot write the backup {str(target)!r}: it exists. Give another name.")
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    with _told(f"Cannot write the backup {str(target)!r}"):
        try:
            draft.touch(mode=0o600)
            with closing(_connect(source)) as connection, closing(_connect(draft)) as copy:
                # In one step: a copy in several would begin anew with every batch that arrives meanwhile.
                connection.backup(copy)
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)
    return target


def vacuum_store(data_dir: Path) -> Vacuumed:
    """Give back the space of what was deleted. Writers wait meanwhile; readers do not.

    Raises:
        StoreError: When there is no database, it stays locked, or the disk has no room for a second copy.
    """
    path = _existing_database(data_dir)
    before_bytes = path.stat().st_size
    with _told(f"Cannot compact {str(path)!r}"), closing(_connect(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Vacuumed(before_bytes, path.stat().st_size)


def _existing_database(data_dir: Path) -> Path:
    path = StorePaths.of(data_dir).database
    if not path.is_file():
        raise StoreError(f"There is no store yet: {str(path)!r} does not exist. The first trace creates it.")
    return path


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_S)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{what}: {error}. Check the free space and the permissions, and try again."
        ) from error

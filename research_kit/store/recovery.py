"""A damaged database is kept aside, and what can be read of it goes into a new one.

Owns what happens before the server opens its database. Does not judge rows: what SQLite can still read is
taken as it is. Invariant: nothing of a damaged file is deleted or overwritten.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from research_kit.errors import StoreError
from research_kit.store.database import Database

__all__ = ["open_or_recover"]

_logger = logging.getLogger(__name__)
_TABLES = ("observations", "scores")
_COMPANIONS = ("", "-wal", "-shm")
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"
# A header that asks for more is itself damaged.
_MAX_PADDING_BYTES = 1 << 32
_BATCH = 500
# Behind a damaged row the next one is looked for further and further on.
_MAX_SKIP = 4096
_MAX_FAILURES = 500


def open_or_recover(path: Path, *, functions: Mapping[str, Callable[..., bool]], was_ended: bool) -> Database:
    """Open the store's database; when it is damaged, keep it aside and open what could be saved of it.

    Args:
        path: The database.
        functions: Python functions that SQL may call.
        was_ended: Whether the last server ended in order; otherwise all pages are checked.

    Raises:
        StoreError: When the file was written by a newer version, or there is no room for a new one.
    """
    fault = _find_fault(path, is_checked_whole=not was_ended)
    if fault is None:
        return Database(path, functions=functions)
    damaged = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    _logger.error("The database %s is damaged (%s). It is kept as %s.", path, fault, damaged)
    for suffix in _COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(damaged.with_name(damaged.name + suffix))
    database = Database(path, functions=functions)
    readable = _make_readable(damaged, path)
    try:
        counts = {table: _copy_table(readable, database, table) for table in _TABLES}
    finally:
        readable.unlink(missing_ok=True)
    saved = ", ".join(f"{count} {table}" for table, count in counts.items())
    _logger.error("Saved from %s: %s.", damaged, saved)
    return database


def _find_fault(path: Path, *, is_checked_whole: bool) -> str | None:
    """Return what is wrong with a database; None when it is sound or missing."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            # Reads the schema and the first page of every table.
            for table in _tables(connection):
                connection.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1").fetchall()
            if is_checked_whole:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                return None if found == "ok" else str(found)
    except sqlite3.DatabaseError as error:
        return str(error)
    return None


def _tables(connection: sqlite3.Connection) -> list[str]:
    known = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [table for table in _TABLES if table in known]


def _make_readable(damaged: Path, sound: Path) -> Path:
    """Return a copy that SQLite opens: with a header, and as long as its header says."""
    copy = damaged.with_name(f"{damaged.name}.draft")
    for suffix in ("", "-wal"):
        part = damaged.with_name(damaged.name + suffix)
        if part.exists():
            shutil.copyfile(part, copy.with_name(copy.name + suffix))
    copy.chmod(0o600)
    with copy.open("r+b") as file:
        header = file.read(_HEADER_BYTES)
        size = file.seek(0, os.SEEK_END)
        if not header.startswith(_MAGIC):
            # All our databases begin alike; how many pages this one has, its length tells.
            with sound.open("rb") as other:
                header = other.read(_HEADER_BYTES)
            page_bytes = int.from_bytes(header[16:18])
            header = header[:28] + (size // page_bytes).to_bytes(4) + header[32:]
            file.seek(0)
            file.write(header)
        wanted = int.from_bytes(header[16:18]) * int.from_bytes(header[28:32])
        # Beyond its end SQLite would read nothing at all of a file that is too short.
        file.truncate(max(size, wanted) if wanted < size + _MAX_PADDING_BYTES else size)
    return copy


def _copy_table(damaged: Path, database: Database, table: str) -> int:
    """Copy the rows that can be read, and return how many they are."""
    copied_count = 0
    try:
        with closing(sqlite3.connect(damaged, isolation_level=None)) as source:
            source.row_factory = sqlite3.Row
            for rows in _readable_rows(source, table):
                copied_count += _insert(database, table, rows)
    except sqlite3.DatabaseError as error:
        _logger.error("Nothing more of %s can be read: %s", table, error)
    return copied_count


def _readable_rows(source: sqlite3.Connection, table: str) -> Iterator[list[sqlite3.Row]]:
    """Yield the rows in their order, leaving out what lies on damaged pages."""
    position, size, failure_count = 0, _BATCH, 0
    while failure_count < _MAX_FAILURES:
        try:
            rows = source.execute(
                f"SELECT rowid AS rk_rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (position, size),
            ).fetchall()
        except sqlite3.DatabaseError:
            if size > 1:
                size = 1
            else:
                position += min(2**failure_count, _MAX_SKIP)
                failure_count += 1
            continue
        if not rows:
            return
        yield rows
        position, size, failure_count = rows[-1]["rk_rowid"], min(size * 2, _BATCH), 0


def _insert(database: Database, table: str, rows: list[sqlite3.Row]) -> int:
    names = [name for name in rows[0].keys() if name != "rk_rowid"]  # noqa: SIM118 - a row iterates its values
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    values = [tuple(row[name] for name in names) for row in rows]
    try:
        with database.writing() as connection:
            connection.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", values)
    except sqlite3.IntegrityError:
        # A damaged row is not worth the batch it came in.
        return 0 if len(rows) == 1 else sum(_insert(database, table, [row]) for row in rows)
    except sqlite3.Error as error:
        raise StoreError(f"Cannot write the recovered store: {error}. Check the free space.") from error
    return len(rows)

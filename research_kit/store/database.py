"""The SQLite file: its connections and the numbered migrations of its schema.

Owns opening, locking and the schema; knows no JSON and no HTTP. Invariant: one writer at a time, in one
transaction per batch, while readers go on reading the last committed state (WAL).
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from research_kit.errors import StoreError

__all__ = ["MIGRATIONS", "Database"]

_IDLE_READERS = 8
_BUSY_TIMEOUT_MS = 10_000

# Large columns come last: SQLite then reads the small ones without visiting overflow pages.
_CREATE_OBSERVATIONS = """
CREATE TABLE observations (
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    start_ms INTEGER NOT NULL,
    trace_hash INTEGER NOT NULL,
    end_ms INTEGER NOT NULL,
    completion_start_ms INTEGER,
    parent_id TEXT,
    is_root INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    level TEXT NOT NULL,
    status_message TEXT NOT NULL,
    version TEXT NOT NULL,
    "release" TEXT NOT NULL,
    environment TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    trace_name TEXT,
    tags TEXT NOT NULL,
    is_public INTEGER NOT NULL,
    model TEXT NOT NULL,
    model_id TEXT NOT NULL,
    pricing_tier_id TEXT,
    pricing_tier_name TEXT,
    input_price TEXT,
    output_price TEXT,
    total_price TEXT,
    model_parameters TEXT NOT NULL,
    usage_details TEXT NOT NULL,
    input_usage INTEGER NOT NULL,
    output_usage INTEGER NOT NULL,
    total_usage INTEGER NOT NULL,
    cost_details TEXT NOT NULL,
    input_cost REAL,
    output_cost REAL,
    total_cost REAL,
    prompt_name TEXT NOT NULL,
    prompt_version INTEGER,
    created_ms INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    metadata_short TEXT,
    metadata_stored TEXT NOT NULL,
    input TEXT,
    output TEXT
);
CREATE UNIQUE INDEX observations_identity ON observations (trace_id, span_id, start_ms);
CREATE INDEX observations_order ON observations (start_ms DESC, trace_hash DESC, span_id DESC);
CREATE INDEX observations_session ON observations (session_id, start_ms DESC, trace_hash DESC, span_id DESC);
"""

_CREATE_SCORES = """
CREATE TABLE scores (
    score_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    data_type TEXT NOT NULL,
    numeric_value REAL,
    text_value TEXT,
    subject TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    observation_id TEXT,
    environment TEXT NOT NULL,
    source TEXT NOT NULL,
    comment TEXT,
    metadata TEXT NOT NULL,
    queue_id TEXT,
    timestamp_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX scores_order ON scores (timestamp_ms DESC, score_id DESC);
CREATE INDEX scores_subject ON scores (subject, subject_id);
"""

_HOUR_OF = "{row}.start_ms - ({row}.start_ms % 3600000 + 3600000) % 3600000"
_HOURLY_MEASURES = (
    "latency",
    "streaming_latency",
    "time_to_first_token",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost",
    "output_cost",
    "total_cost",
)
# The change is any number that is not the one before: an hour that changes while it is summed up stays stale.
_MARK_STALE = "INSERT OR REPLACE INTO stale_hours VALUES ({hour}, random());"
_CREATE_HOURLY = f"""
CREATE TABLE hourly (
    hour_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    level TEXT NOT NULL,
    environment TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    "release" TEXT NOT NULL,
    user_id TEXT NOT NULL,
    trace_name TEXT,
    tags TEXT NOT NULL,
    prompt_name TEXT NOT NULL,
    prompt_version INTEGER,
    is_root INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    {", ".join(f"{name}_sum REAL, {name}_count INTEGER NOT NULL" for name in _HOURLY_MEASURES)}
);
CREATE INDEX hourly_hour ON hourly (hour_ms);
CREATE TABLE stale_hours (hour_ms INTEGER PRIMARY KEY, change INTEGER NOT NULL);
CREATE TRIGGER observations_added AFTER INSERT ON observations BEGIN
    {_MARK_STALE.format(hour=_HOUR_OF.format(row="new"))}
END;
CREATE TRIGGER observations_changed AFTER UPDATE ON observations BEGIN
    {_MARK_STALE.format(hour=_HOUR_OF.format(row="old"))}
    {_MARK_STALE.format(hour=_HOUR_OF.format(row="new"))}
END;
CREATE TRIGGER observations_removed AFTER DELETE ON observations BEGIN
    {_MARK_STALE.format(hour=_HOUR_OF.format(row="old"))}
END;
INSERT OR REPLACE INTO stale_hours SELECT DISTINCT {_HOUR_OF.format(row="observations")}, 0 FROM observations;
"""

MIGRATIONS: tuple[str, ...] = (_CREATE_OBSERVATIONS, _CREATE_SCORES, _CREATE_HOURLY)
"""Number n of the schema is made from number n - 1 by entry n - 1. Released entries never change."""


class Database:
    """Connections to one SQLite file, usable from any thread."""

    def __init__(self, path: Path, *, functions: Mapping[str, Callable[..., bool]] | None = None) -> None:
        """Open ``path`` and bring its schema up to date.

        Args:
            path: The file; it is created when missing.
            functions: Python functions that SQL may call, by their names there.

        Raises:
            StoreError: When the file is no database, or was written by a newer version of research-kit.
        """
        self._path = path
        self._functions = functions or {}
        self._write_lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(maxsize=_IDLE_READERS)
        try:
            self._writer = self._connect()
            self._prepare()
        except sqlite3.Error as error:
            raise StoreError(
                f"Cannot open the store's database {str(path)!r}: {error}. "
                "Restore the file, or move it away to begin with an empty store."
            ) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the one writing connection inside a transaction; an error undoes all of it."""
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk undoes a transaction by itself, or keeps it from being committed.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one committed state until the block ends."""
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")
            try:
                self._readers.put_nowait(connection)
            except queue.Full:
                connection.close()

    def close(self) -> None:
        """Close all connections; the log of SQLite is merged into the file."""
        while not self._readers.empty():
            self._readers.get_nowait().close()
        with self._write_lock:
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        # Connections travel between threads of the server, never into two of them at the same time.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA case_sensitive_like = ON")
        # What is mapped counts as memory of the server: enough for the pages that are read again and again.
        connection.execute("PRAGMA mmap_size = 67108864")
        for name, function in self._functions.items():
            connection.create_function(name, -1, function, deterministic=True)
        return connection

    def _prepare(self) -> None:
        self._path.chmod(0o600)
        self._writer.execute("PRAGMA journal_mode = WAL")
        # A client deletes what the server has accepted, so an accepted batch must survive a power failure.
        self._writer.execute("PRAGMA synchronous = FULL")
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(
                f"The store's database {str(self._path)!r} has schema {version}, and this version of "
                f"research-kit knows schemas up to {len(MIGRATIONS)}. Upgrade research-kit, or set "
                "RESEARCH_KIT_DATA_DIR to another folder."
            )
        for number, migration in enumerate(MIGRATIONS[version:], version + 1):
            self._writer.executescript(
                f"BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;"
            )

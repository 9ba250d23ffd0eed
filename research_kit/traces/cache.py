"""Observations that were read before, as Parquet files in the user's cache folder.

Owns files, their names and their locks; asks no server. One folder per server and key pair, in it one per
kind of read, in it one file per range of time; the name of a file says its range, so there is no list that
could disagree with the files. A range is kept once it is closed: when it ended longer ago than the window.
What is younger is read from the server every time, so late arrivals and changes within the window are always
seen; later ones, and deletions, need ``refresh=True``.
Invariant: what `TraceCache.load` gives for a range is what the server gave for it when it was kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from research_kit.config import load_settings, private_directory
from research_kit.traces.query import ObservationQuery
from research_kit.traces.schema import OBSERVATION_SOURCE
from research_kit.traces.slices import EMPTY

__all__ = ["TraceCache"]

_WINDOW = timedelta(hours=24)
_MAX_BYTES = 2 * 1024**3
_MOST_FILES = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_MS = 1 << 60
_LOCK = ".lock"


class Span(NamedTuple):
    """A range of time in milliseconds since 1970; the end is not in it."""

    start_ms: int
    end_ms: int


class TraceCache:
    """Keeps closed ranges of time of one server and key pair.

    Args:
        owner: What separates projects: address and keys; only its hash is written.
        folder: Where; None means the user's cache folder.
        window: How long a range stays open after it ended.
        max_bytes: Size of all files together; beyond it the ones used longest ago are deleted.
    """

    def __init__(
        self,
        owner: tuple[str, ...],
        *,
        folder: Path | None = None,
        window: timedelta = _WINDOW,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self.root = (load_settings().cache_dir if folder is None else folder) / "traces"
        self._owner = _hash(*owner)
        self._window = window
        self._max_bytes = max_bytes

    def closed_until(self) -> datetime:
        """Return the moment before which ranges are closed now."""
        return datetime.now(UTC) - self._window

    def load(self, query: ObservationQuery) -> tuple[list[pa.Table], list[ObservationQuery]]:
        """Return what is kept of a read, and the reads that are left to do."""
        wanted, tables, gaps = _span(query), [], []
        position = wanted.start_ms
        for span, path in self._files(query):
            begin, end = max(span.start_ms, position), min(span.end_ms, wanted.end_ms)
            table = _read(path) if begin < end else None
            if table is None:
                continue
            if begin > position:
                gaps.append(Span(position, begin))
            tables.append(_within(table, Span(begin, end)) if Span(begin, end) != span else table)
            position = end
        if position < wanted.end_ms:
            gaps.append(Span(position, wanted.end_ms))
        return tables, [_narrowed(query, gap) for gap in gaps]

    def keep(self, query: ObservationQuery, table: pa.Table, closed_until: datetime) -> None:
        """Keep the part of a completed read that lies before ``closed_until``."""
        wanted = _span(query)
        closed = Span(wanted.start_ms, min(wanted.end_ms, _ms(closed_until)))
        if closed.start_ms >= closed.end_ms:
            return
        folder = self._folder(query)
        for private in (self.root, folder.parent, folder):
            private_directory(private, purpose="traces that were read before")
        with FileLock(folder / _LOCK, mode=0o600):
            _write(folder, closed, _within(table, closed))
            self._join_files(query)
        self._shrink()

    def forget(self, query: ObservationQuery) -> None:
        """Delete what is kept of the range of a read, with all files that touch it."""
        wanted = _span(query)
        for span, path in self._files(query):
            if span.start_ms < wanted.end_ms and span.end_ms > wanted.start_ms:
                path.unlink(missing_ok=True)

    def _join_files(self, query: ObservationQuery) -> None:
        """Make one file of many, where their ranges leave no gap."""
        files = self._files(query)
        first, last = files[0][0].start_ms, max(span.end_ms for span, _ in files)
        if len(files) < _MOST_FILES:
            return
        tables, gaps = self.load(_narrowed(query, Span(first, last)))
        if gaps:
            return
        _write(self._folder(query), Span(first, last), pa.concat_tables([EMPTY, *tables]))
        for span, path in files:
            if span != Span(first, last):
                path.unlink(missing_ok=True)

    def _files(self, query: ObservationQuery) -> list[tuple[Span, Path]]:
        """Return the files of a kind of read, by start, the longest first."""
        found = [(_named_span(path), path) for path in self._folder(query).glob("*.parquet")]
        named = [(span, path) for span, path in found if span is not None]
        return sorted(named, key=lambda file: (file[0].start_ms, -file[0].end_ms))

    def _folder(self, query: ObservationQuery) -> Path:
        kind = replace(query, start_time=None, end_time=None).params()
        columns = [(column.name, column.dtype) for column in OBSERVATION_SOURCE]
        return self.root / self._owner / _hash(json.dumps([kind, columns], sort_keys=True))

    def _shrink(self) -> None:
        files = sorted(_sizes(self.root), reverse=True)
        total = 0
        for _, size, path in files:
            total += size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)


def _read(path: Path) -> pa.Table | None:
    """Return the rows of a file; a file that cannot be read is deleted, so that its range is read again."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if table.schema.equals(EMPTY.schema):
            os.utime(path)
            return table
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError):
        pass
    path.unlink(missing_ok=True)
    return None


def _write(folder: Path, span: Span, table: pa.Table) -> None:
    handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")  # readable by its owner only
    os.close(handle)
    try:
        pq.write_table(table, name, compression="lz4", write_page_checksum=True)
        Path(name).replace(folder / f"{span.start_ms}-{span.end_ms}.parquet")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _within(table: pa.Table, span: Span) -> pa.Table:
    starts = pc.divide(pc.cast(table["start_time"], pa.int64()), 1_000_000)
    return table.filter(pc.and_(pc.greater_equal(starts, span.start_ms), pc.less(starts, span.end_ms)))


def _span(query: ObservationQuery) -> Span:
    start = 0 if query.start_time is None else max(_ms(query.start_time), 0)
    return Span(start, _END_MS if query.end_time is None else _ms(query.end_time))


def _narrowed(query: ObservationQuery, span: Span) -> ObservationQuery:
    start = query.start_time if span.start_ms == _span(query).start_ms else _moment(span.start_ms)
    end = query.end_time if span.end_ms == _span(query).end_ms else _moment(span.end_ms)
    return replace(query, start_time=start, end_time=end)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _named_span(path: Path) -> Span | None:
    start, _, end = path.stem.partition("-")
    return Span(int(start), int(end)) if start.isdecimal() and end.isdecimal() else None


def _sizes(root: Path) -> Iterator[tuple[float, int, Path]]:
    for path in (*root.glob("*/*/*.parquet"), *root.glob("*/*/*.tmp")):
        try:
            found = path.stat()
        except FileNotFoundError:  # another kernel deleted it
            continue
        yield found.st_mtime, found.st_size, path


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

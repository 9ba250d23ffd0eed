"""Ended observations on disk until a server has accepted them.

Owns one append-only file per process and its lock; does not know servers, and reads no payload. Invariants:
an entry is in the file before it can be taken, it leaves only when it was accepted, and a file that was cut
off or damaged at any place gives back every whole entry.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from research_kit.session.spool_file import (
    HEAD_BYTES,
    NO_KEY,
    Kind,
    NoFile,
    SpoolKey,
    encode_record,
    open_private,
    read_records,
    write_all,
)

__all__ = ["DEFAULT_LIMIT_BYTES", "NO_KEY", "Entry", "Kind", "Spool", "SpoolKey"]

DEFAULT_LIMIT_BYTES = 512 * 1024 * 1024

_NUMBER = struct.Struct(">Q")
# What waits may take this part of the limit; the rest is for what was accepted and is still in the file.
_WAITING_PART = 0.8
# At the limit, oldest traces go until this part of it is left, so that it is not reached again at once.
_KEPT_PART = 0.6
# So much is also kept in memory, because each reading would hold up the threads that are observed.
_IN_MEMORY_BYTES = 4_000_000
# How often a disk that had no room is tried with what is in memory only.
_CATCH_UP_INTERVAL_S = 1.0


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One thing to deliver.

    Attributes:
        kind: ``SPAN`` or ``SCORE``.
        key: The span; zeros for scores.
        offset: Where its payload begins in the file; None when the disk had no room.
        payload_bytes: Length of the payload.
        payload: The payload itself when the disk had no room, and of the first that wait.
        failed_count: How often the server has failed on it alone.
    """

    kind: Kind
    key: SpoolKey
    offset: int | None
    payload_bytes: int
    payload: bytes | None = None
    failed_count: int = 0


class Spool:
    """The entries of one process, oldest first.

    Args:
        path: The file.
        lock: The lock that says that the file has an owner; already held.
        limit_bytes: How large the file may become; at the limit the oldest traces are given up.
        has_file: False keeps everything in memory, where no file can be written.
    """

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        has_file: bool = True,
    ) -> None:
        self.path = path
        self.lost_count = 0
        self.fault = ""
        # Whether entries are in memory only, and whether some were written behind younger ones.
        self._is_behind = False
        self._is_unordered = False
        self._catch_up_again_s = 0.0
        self._is_closed = False
        self._file_lock = lock
        self._limit_bytes = limit_bytes
        self._mutex = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._open: dict[SpoolKey, bytes] = {}
        self._file: BinaryIO | NoFile = open_private(path) if has_file else NoFile()
        self._size = 0
        self._rewrite_above_bytes = limit_bytes

    @classmethod
    def create(cls, folder: Path, *, suffix: str = ".spool", limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Spool:
        """Begin a new file in ``folder``.

        Raises:
            OSError: When the folder cannot be written.
        """
        # Folders above the last get the usual permissions from mkdir(parents=True), so they come first.
        for place in (folder.parent.parent, folder.parent, folder):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        path = folder / f"{uuid.uuid4().hex}{suffix}"
        lock = _file_lock(path)
        lock.acquire(timeout=0)
        try:
            return cls(path, lock, limit_bytes=limit_bytes)
        except OSError:
            lock.release()
            raise

    @classmethod
    def in_memory(cls, path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Spool:
        """Begin one that is never on disk, because ``path`` cannot be written."""
        return cls(path, _file_lock(path), limit_bytes=limit_bytes, has_file=False)

    @classmethod
    def adopt(cls, path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Spool | None:
        """Take over the file of a process that is gone; None while its owner lives.

        Raises:
            OSError: When it cannot be read or written.
        """
        lock = _file_lock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        try:
            path.with_suffix(".draft").unlink(missing_ok=True)
            if path.exists():  # else another process has just delivered it
                spool = cls(path, lock, limit_bytes=limit_bytes)
                spool._recover()
                return spool
        except OSError:
            lock.release()
            raise
        lock.release()
        return None

    @property
    def pending_count(self) -> int:
        """How many entries wait."""
        return len(self._entries)

    @property
    def waiting_bytes(self) -> int:
        """How much room the waiting entries take."""
        return self._waiting_bytes

    @property
    def open_roots(self) -> dict[SpoolKey, bytes]:
        """The roots that were written as open and have not ended."""
        with self._mutex:
            return dict(self._open)

    def append(self, kind: Kind, payload: bytes, *, key: SpoolKey = NO_KEY) -> bool:
        """Write an entry; when the disk has no room, keep it in memory and say so in `fault`.

        Returns:
            False when the spool is closed and takes nothing more.
        """
        with self._mutex:
            if self._is_closed:
                return False
            if kind is Kind.OPEN:
                self._open[key] = payload
                self._write(kind, payload, key)
                return True
            # Listed before it is written: an interrupt of the kernel in between then loses nothing.
            entry = Entry(kind=kind, key=key, offset=None, payload_bytes=len(payload), payload=payload)
            self._entries.append(entry)
            self._waiting_bytes += _room(entry)
            entry.offset = self._write(kind, payload, key)
            self._open.pop(key, None)
            if entry.offset is not None and self._waiting_bytes > _IN_MEMORY_BYTES:
                entry.payload = None
            if entry.offset is not None and self._is_behind and time.monotonic() >= self._catch_up_again_s:
                self._catch_up(takes_all=False)
            self._keep_limit()
            return True

    def take(self, *, max_count: int, max_bytes: int) -> list[tuple[Entry, bytes]]:
        """Return the oldest entries with their payloads, all of one kind; they stay until `accept`.

        Those on which the server has failed are left out; `take_suspect` returns them.
        """
        with self._mutex:
            if self._is_closed:
                return []
            taken: list[tuple[Entry, bytes]] = []
            total_bytes = 0
            for entry in self._entries:
                if entry.failed_count:
                    continue
                is_other_kind = bool(taken) and entry.kind is not taken[0][0].kind
                total_bytes += entry.payload_bytes
                if len(taken) == max_count or is_other_kind or (taken and total_bytes > max_bytes):
                    break
                taken.append((entry, self._read(entry)))
            return taken

    def take_suspect(self) -> tuple[Entry, bytes] | None:
        """Return the entry on which the server has failed least often, if there is one."""
        with self._mutex:
            suspects = [entry for entry in self._entries if entry.failed_count]
            if self._is_closed or not suspects:
                return None
            entry = min(suspects, key=lambda suspect: suspect.failed_count)
            return entry, self._read(entry)

    def take_newest(self) -> tuple[Entry, bytes] | None:
        """Return the youngest span on which the server has not failed, if there is one."""
        with self._mutex:
            unsuspected = (e for e in reversed(self._entries) if e.kind is Kind.SPAN and not e.failed_count)
            entry = None if self._is_closed else next(unsuspected, None)
            return None if entry is None else (entry, self._read(entry))

    def accept(self, entries: list[Entry]) -> None:
        """Remove entries that `take` returned, because the server has them."""
        with self._mutex:
            if self._is_closed:  # the answer came after the exit; the next process sends them once more
                return
            self._remove({id(entry) for entry in entries})
            if not self._entries:
                self._rewrite()
            else:
                # What was written late lies behind what is younger.
                offsets = (entry.offset for entry in self._entries if entry.offset is not None)
                first = min(offsets, default=None) if self._is_unordered else next(offsets, None)
                if first is not None:
                    self._write(Kind.ACCEPTED, _NUMBER.pack(first), NO_KEY)
            if self._is_behind and not isinstance(self._file, NoFile):
                self._catch_up(takes_all=False)
            self._keep_limit()

    def _remove(self, gone: set[int]) -> None:
        """Remove entries by identity; those that were given up meanwhile are not there any more."""
        while self._entries and id(self._entries[0]) in gone:
            entry = self._entries.popleft()
            gone.discard(id(entry))
            self._waiting_bytes -= _room(entry)
        if gone:
            self._entries = deque(entry for entry in self._entries if id(entry) not in gone)
            self._waiting_bytes = sum(map(_room, self._entries))

    @property
    def has_unsuspected(self) -> bool:
        """Whether an entry waits on which the server has not failed."""
        with self._mutex:
            return any(not entry.failed_count for entry in self._entries)

    def note_reason(self, reason: str, *, key: SpoolKey) -> None:
        """Write down why the entry of ``key``, which follows, is set aside."""
        with self._mutex:
            if not self._is_closed:
                self._write(Kind.REASON, reason.encode("utf-8", "replace"), key)

    def save(self) -> int:
        """Write down what the disk had no room for, as far as it has room now; return how many it has not."""
        with self._mutex:
            if not self._is_closed:
                self._catch_up(takes_all=True)
            return sum(entry.offset is None for entry in self._entries)

    def give_up(self, limit_bytes: int) -> None:
        """Give up the oldest traces until what waits takes at most ``limit_bytes``."""
        with self._mutex:
            if not self._is_closed and self._waiting_bytes > limit_bytes:
                self._give_up_oldest(limit_bytes)
                self._rewrite()

    def close(self) -> None:
        """Give the file up: remove it when nothing is in it, else leave it to the next process."""
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            is_empty = not self._entries and not self._open
            self._file.close()
            if isinstance(self._file, NoFile):
                return
            if is_empty:
                self.path.unlink(missing_ok=True)
            self._file_lock.release()
            if is_empty:
                _lock_path(self.path).unlink(missing_ok=True)

    def _write(self, kind: Kind, payload: bytes, key: SpoolKey) -> int | None:
        """Append one record and return where its payload begins; None when it could not be written."""
        record = encode_record(kind, payload, key)
        try:
            write_all(self._file, record)
        except OSError as error:
            self._is_behind = True
            if isinstance(self._file, NoFile):
                return None  # whoever made it has said why
            self.fault = (
                f"cannot write {str(self.path)!r}: {error.strerror}; what ends now is kept in memory only "
                "and is lost when this process ends before the server has taken it. Free some space"
            )
            self._cut_back()
            return None
        # Asked, not counted: an interrupt may have come between an earlier writing and its counting.
        self._size = self._file.seek(0, os.SEEK_CUR)
        return self._size - len(payload)

    def _catch_up(self, *, takes_all: bool) -> None:
        """Write down what is in memory only, oldest first: until one finds no room, or all that find some."""
        self._catch_up_again_s = time.monotonic() + _CATCH_UP_INTERVAL_S
        self._is_behind = False  # until one finds no room again
        for entry in self._entries:
            if entry.offset is not None:
                continue
            assert entry.payload is not None
            entry.offset = self._write(entry.kind, entry.payload, entry.key)
            if entry.offset is not None:
                self._is_unordered = True
            elif not takes_all:
                return
        if not self._is_behind:
            self.fault = ""

    def _cut_back(self) -> None:
        # A half-written record would only be skipped on recovery; the file is a little tidier without it.
        try:
            self._file.truncate(self._size)
        except OSError:
            self._size = self._file.seek(0, os.SEEK_END)

    def _read(self, entry: Entry) -> bytes:
        if entry.payload is not None:
            return entry.payload
        assert entry.offset is not None
        self._file.seek(entry.offset)
        return self._file.read(entry.payload_bytes)

    def _keep_limit(self) -> None:
        if self._waiting_bytes > self._limit_bytes * _WAITING_PART:
            self._give_up_oldest(self._limit_bytes * _KEPT_PART)
        if self._size > self._rewrite_above_bytes:
            self._rewrite()
            # Without room for a copy, not every entry tries again.
            self._rewrite_above_bytes = max(self._limit_bytes, self._size + self._limit_bytes // 10)

    def _give_up_oldest(self, kept_bytes: float) -> None:
        """Give up whole traces, the oldest first, and of the newest its oldest part; scores stay."""
        excess_bytes, given_up = self._waiting_bytes - kept_bytes, set[bytes]()
        for trace_id, trace_bytes in self._trace_sizes().items():
            if excess_bytes > 0 and trace_id != self._entries[-1].key.trace_id:
                given_up.add(trace_id)
                excess_bytes -= trace_bytes
        kept: deque[Entry] = deque()
        for entry in self._entries:
            if entry.kind is Kind.SCORE or entry.key.trace_id not in given_up:
                if entry.kind is Kind.SCORE or excess_bytes <= 0:
                    kept.append(entry)
                else:
                    excess_bytes -= _room(entry)
        self.lost_count += len(self._entries) - len(kept)
        self._entries, self._waiting_bytes = kept, sum(map(_room, kept))

    def _trace_sizes(self) -> dict[bytes, int]:
        sizes: dict[bytes, int] = {}
        for entry in self._entries:
            if entry.kind is not Kind.SCORE:
                sizes[entry.key.trace_id] = sizes.get(entry.key.trace_id, 0) + _room(entry)
        return sizes

    def _rewrite(self) -> None:
        """Replace the file by one that holds only open roots and waiting entries."""
        if isinstance(self._file, NoFile):
            return
        if not self._entries and not self._open:
            self._file.truncate(0)
            self._size = 0
            return
        draft = self.path.with_suffix(".draft")
        try:
            offsets, size = self._write_draft(draft)
        except OSError:
            # No room for a copy: the longer file stays, and what it repeats is taken once by the server.
            draft.unlink(missing_ok=True)
            return
        self._file.close()
        draft.replace(self.path)
        self._file, self._size = open_private(self.path), size
        for entry, offset in zip(self._entries, offsets, strict=True):
            if entry.offset is None:
                entry.payload = None
            entry.offset = offset
        self._is_unordered = False

    def _write_draft(self, draft: Path) -> tuple[list[int], int]:
        offsets: list[int] = []
        size = 0
        with open_private(draft, os.O_TRUNC) as file:
            if self.lost_count:
                size += write_all(file, encode_record(Kind.LOST, _NUMBER.pack(self.lost_count), NO_KEY))
            for key, payload in self._open.items():
                size += write_all(file, encode_record(Kind.OPEN, payload, key))
            for entry in self._entries:
                offsets.append(size + HEAD_BYTES)
                size += write_all(file, encode_record(entry.kind, self._read(entry), entry.key))
        return offsets, size

    def _recover(self) -> None:
        accepted_before = 0
        for kind, key, offset, payload in read_records(self._file):
            match kind:
                case Kind.ACCEPTED | Kind.LOST if len(payload) != _NUMBER.size:
                    continue  # none of ours
                case Kind.ACCEPTED:
                    accepted_before = _NUMBER.unpack(payload)[0]
                case Kind.LOST:
                    self.lost_count = _NUMBER.unpack(payload)[0]
                case Kind.REASON:
                    continue
                case Kind.OPEN:
                    self._open[key] = payload
                case _:
                    self._open.pop(key, None)
                    self._entries.append(Entry(kind=kind, key=key, offset=offset, payload_bytes=len(payload)))
        waiting = [entry for entry in self._entries if (entry.offset or 0) >= accepted_before]
        self._entries = deque(waiting)
        self._waiting_bytes = sum(map(_room, waiting))
        self._size = self._file.seek(0, os.SEEK_END)


def _room(entry: Entry) -> int:
    return HEAD_BYTES + entry.payload_bytes


def _file_lock(path: Path) -> FileLock:
    # One hold for all threads: the thread that takes a spool over is not always the one that gives it up.
    return FileLock(_lock_path(path), mode=0o600, thread_local=False)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")

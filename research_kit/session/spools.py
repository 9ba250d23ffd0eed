"""The spool files of one destination: this process's own, and those of processes that are gone.

Owns where they are and who holds them; sends nothing. Invariant: a file that cannot be used, be it
unreadable, on a full disk or somebody else's, keeps no other from being used.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships without types

from research_kit.config import temporary_directory, temporary_path
from research_kit.errors import ConfigError
from research_kit.session.encoding import as_died
from research_kit.session.spool import DEFAULT_LIMIT_BYTES, Entry, Kind, Spool
from research_kit.session.spool_file import count_entries

__all__ = ["REFUSED_SUFFIX", "Loss", "Spools", "adopt_spool", "spool_paths"]

REFUSED_SUFFIX = ".refused"


class Loss(NamedTuple):
    """How many entries were in memory only when a process ended, and why."""

    entry_count: int
    fault: str


class Spools:
    """The spools that this process holds.

    Args:
        folder: Where those of the destination are.
        limit_bytes: How large the file of this process may become, and what it takes over altogether.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._lock = threading.Lock()
        self._own: Spool | None = None
        self._adopted: list[Spool] = []
        self._refused: Spool | None = None
        self._is_released = False
        self._lost_before = 0
        self._aside_elsewhere = 0

    @property
    def fault(self) -> str:
        """What is wrong with the disk; empty when nothing is."""
        return next((spool.fault for spool in self._all() if spool.fault), "")

    @property
    def waiting_count(self) -> int:
        """How many entries wait."""
        return sum(spool.pending_count for spool in self.held())

    @property
    def lost_count(self) -> int:
        """How many entries were given up because a spool was full."""
        return self._lost_before + sum(spool.lost_count for spool in self.held())

    @property
    def refused_count(self) -> int:
        """How many entries were set aside by `refuse`."""
        return self._refused.pending_count if self._refused is not None else 0

    @property
    def aside_count(self) -> int:
        """How many entries are set aside in all, those of other processes as of the last `adopt`."""
        return self._aside_elsewhere + self.refused_count

    def held(self) -> list[Spool]:
        """Return the spools to deliver, those of earlier processes first."""
        own = self._own
        return [*self._adopted, *([own] if own is not None else [])]

    def own(self) -> Spool:
        """Return the spool of this process, beginning it when needed."""
        own = self._own
        if own is not None:
            return own
        with self._lock:
            if self._own is None:
                self._own = _create(self._folder, limit_bytes=self._limit_bytes)
            return self._own

    def adopt(self) -> None:
        """Take over the spools of processes that are gone."""
        known = {spool.path for spool in self.held()}
        found = [path for path in spool_paths(self._folder) if path not in known]
        adopted = [spool for path in found if (spool := adopt_spool(path, limit_bytes=self._limit_bytes))]
        with self._lock:
            if not self._is_released:
                self._adopted += adopted
                adopted = []
        for spool in adopted:
            spool.close()
        room_bytes = self._limit_bytes
        for spool in reversed(self._adopted):  # the newest is the last to lose anything
            spool.give_up(max(room_bytes, 0))
            room_bytes -= spool.waiting_bytes
        own = self._refused.path if self._refused is not None else None
        paths = [path for path in spool_paths(self._folder, REFUSED_SUFFIX) if path != own]
        self._aside_elsewhere = sum(map(count_entries, paths))

    def drop_empty(self, spool: Spool) -> None:
        """Remove the file of an earlier process when all of it is delivered."""
        with self._lock:
            if spool not in self._adopted or spool.pending_count:
                return
            self._adopted.remove(spool)
            self._lost_before += spool.lost_count
        spool.close()

    def refuse(self, entry: Entry, payload: bytes, reason: str) -> None:
        """Set an entry aside that the server does not take for its content."""
        if self._refused is None:
            self._refused = _create(self._folder, suffix=REFUSED_SUFFIX, limit_bytes=self._limit_bytes)
        self._refused.note_reason(reason, key=entry.key)
        self._refused.append(entry.kind, payload, key=entry.key)

    def release(self) -> Loss:
        """Give everything up, so that another process can take over what is left; return what it cannot."""
        loss = Loss(sum(spool.save() for spool in self._all()), self.fault)
        with self._lock:
            given_up = self._all()
            # What still ends opens another spool, which the next process delivers.
            self._lost_before = self.lost_count
            self._own, self._adopted, self._refused, self._is_released = None, [], None, True
        for spool in given_up:
            spool.close()
        return loss

    def _all(self) -> list[Spool]:
        return [*self.held(), *([self._refused] if self._refused is not None else [])]


def spool_paths(folder: Path, suffix: str = ".spool") -> list[Path]:
    """Return the files of a destination, oldest first, also those where its folder could not be written."""
    found = [path for place in (folder, _refuge(folder)) for path in place.glob(f"*{suffix}")]
    return sorted(found, key=_age)


def adopt_spool(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Spool | None:
    """Take over a spool whose process is gone, with its open roots closed as errors.

    Returns:
        None while its process lives, when nothing is in it, and when it cannot be read.
    """
    heard_of_ns = int(_age(path) * 1e9)
    try:
        spool = Spool.adopt(path, limit_bytes=limit_bytes)
    except OSError:
        return None
    if spool is not None:
        for key, payload in spool.open_roots.items():
            with suppress(DecodeError, IndexError):  # no span at all; nothing can be made of it
                spool.append(Kind.SPAN, as_died(payload, heard_of_ns), key=key)
        if not spool.pending_count:
            spool.close()
            return None
    return spool


def _create(folder: Path, *, suffix: str = ".spool", limit_bytes: int) -> Spool:
    try:
        return Spool.create(folder, suffix=suffix, limit_bytes=limit_bytes)
    except OSError as error:
        cause = f"cannot write {str(folder)!r}: {error.strerror}"
    remedy = "Correct its permissions, or set RESEARCH_KIT_DATA_DIR"
    with suppress(OSError, ConfigError):
        temporary_directory()  # refuses one of somebody else
        spool = Spool.create(_refuge(folder), suffix=suffix, limit_bytes=limit_bytes)
        spool.fault = (
            f"{cause}; what ends is kept in {str(spool.path.parent)!r} until it is delivered. {remedy}"
        )
        return spool
    spool = Spool.in_memory(folder / f"memory{suffix}", limit_bytes=limit_bytes)
    spool.fault = f"{cause}; what ends is kept in memory only. {remedy}"
    return spool


def _refuge(folder: Path) -> Path:
    return temporary_path() / "spool" / folder.name


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just delivered it
        return time.time()

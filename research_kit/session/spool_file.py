"""The file of a spool: records one after the other, each with a checksum.

Owns how a record is written and found again; does not know which records still count. Invariant: whatever
part of a file is cut off or damaged, every record that is whole is found.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from research_kit.private import open_private as open_own

__all__ = [
    "HEAD_BYTES",
    "NO_KEY",
    "Kind",
    "NoFile",
    "Record",
    "SpoolKey",
    "count_entries",
    "encode_record",
    "open_private",
    "read_records",
    "write_all",
]

_MAGIC = b"\xf1rk\x01"
# magic, kind, trace id, span id, payload length, checksum of everything after the magic
_HEAD = struct.Struct(">4sB16s8sII")
HEAD_BYTES = _HEAD.size
# How often the length of a file may be read in vain for checksums: many false heads that each claim most of
# the file would otherwise take the square of its length.
_VAIN_CHECKS = 4


class Kind(IntEnum):
    """What an entry is."""

    SPAN = 1  # an ended span
    OPEN = 2  # a root that was open when it was written; void once its SPAN follows
    ACCEPTED = 3  # everything before the offset in the payload was accepted
    SCORE = 4
    REASON = 6  # why the entry that follows was set aside
    LOST = 5  # how many entries were given up before the file was last rewritten; until then it has them


class SpoolKey(NamedTuple):
    """Which span an entry is about."""

    trace_id: bytes
    span_id: bytes


NO_KEY = SpoolKey(bytes(16), bytes(8))


class NoFile:
    """Takes nothing, as a disk without room."""

    def write(self, _: object) -> int:
        """Refuse.

        Raises:
            OSError: Always.
        """
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, _: int) -> bytes:
        """Return nothing."""
        return b""

    def seek(self, *_: int) -> int:
        """Stay at the beginning."""
        return 0

    def truncate(self, _: int) -> int:
        """Stay empty."""
        return 0

    def close(self) -> None:
        """Nothing is open."""


def write_all(file: BinaryIO | NoFile, data: bytes) -> int:
    """Write all of ``data`` and return its length.

    Raises:
        OSError: When there is no room for all of it; a part may have been written.
    """
    # A file without a buffer writes as much as there is room for, and tells only with the next write.
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)


def open_private(path: Path, flags: int = 0) -> BinaryIO:
    """Open a file for reading and appending that nobody else can use, beginning it when needed.

    Raises:
        OSError: When it cannot be opened, or is a link or somebody else's.
    """
    # What is written goes to the end, wherever something was read last.
    opened = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | flags)
    return os.fdopen(opened, "r+b", buffering=0)


def encode_record(kind: Kind, payload: bytes, key: SpoolKey) -> bytes:
    """Return a record as it is in the file; its payload is the end of it."""
    checksum = zlib.crc32(payload, zlib.crc32(bytes([kind]) + key.trace_id + key.span_id))
    return _HEAD.pack(_MAGIC, kind, key.trace_id, key.span_id, len(payload), checksum) + payload


class Record(NamedTuple):
    """A record that was found, and where its payload begins."""

    kind: Kind
    key: SpoolKey
    offset: int
    payload: bytes


def read_records(file: BinaryIO | NoFile) -> Iterator[Record]:
    """Yield the whole records of a file; what is damaged is skipped up to the next record that is whole.

    Heads that claim more than there is are checked for as long as that stays a small multiple of the file.
    """
    if isinstance(file, NoFile) or not file.seek(0, os.SEEK_END):
        return  # nothing cannot be mapped
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, searched = 0, 0
        budget_bytes = _VAIN_CHECKS * len(data)
        while (position := data.find(_MAGIC, position)) >= 0:
            budget_bytes += 2 * (position - searched)
            searched = position
            head = _head_at(data, position)
            if head is None or head.payload_bytes > budget_bytes or not _is_whole(data, head):
                budget_bytes -= min(head.payload_bytes, budget_bytes) if head is not None else 0
                position += 1
                continue
            end = head.begin + head.payload_bytes
            yield Record(head.kind, head.key, head.begin, data[head.begin : end])
            position = searched = end


def count_entries(path: Path) -> int:
    """Return how many spans and scores are in a file, whoever holds it; 0 when it cannot be read."""
    try:
        with path.open("rb") as file:
            return sum(record.kind in (Kind.SPAN, Kind.SCORE) for record in read_records(file))
    except OSError:
        return 0


class _Head(NamedTuple):
    """What a record says of itself, and where its payload begins."""

    kind: Kind
    key: SpoolKey
    begin: int
    payload_bytes: int
    checksum: int


def _head_at(data: mmap.mmap, position: int) -> _Head | None:
    if position + HEAD_BYTES > len(data):
        return None
    _, kind, trace_id, span_id, payload_bytes, checksum = _HEAD.unpack_from(data, position)
    begin = position + HEAD_BYTES
    if begin + payload_bytes > len(data) or kind not in Kind.__members__.values():
        return None
    return _Head(Kind(kind), SpoolKey(trace_id, span_id), begin, payload_bytes, checksum)


def _is_whole(data: mmap.mmap, head: _Head) -> bool:
    seed = zlib.crc32(bytes([head.kind]) + head.key.trace_id + head.key.span_id)
    with memoryview(data) as view:
        return zlib.crc32(view[head.begin : head.begin + head.payload_bytes], seed) == head.checksum

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
    "encode_record",
    "open_private",
    "read_records",
    "write_all",
]

_MAGIC = b"\xf1rk\x01"
# magic, kind, trace id, span id, payload length, checksum of everything after the magic
_HEAD = struct.Struct(">4sB16s8sII")
HEAD_BYTES = _HEAD.size


class Kind(IntEnum):
    """What an entry is."""

    SPAN = 1  # an ended span
    OPEN = 2  # a root that was open when it was written; void once its SPAN follows
    ACCEPTED = 3  # everything before the offset in the payload was accepted
    SCORE = 4
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
    """Yield the whole records of a file; what is damaged is skipped up to the next record that is whole."""
    if isinstance(file, NoFile) or not file.seek(0, os.SEEK_END):
        return  # nothing cannot be mapped
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 0
        while (position := data.find(_MAGIC, position)) >= 0:
            record = _record_at(data, position)
            if record is None:
                position += 1
                continue
            yield record
            position = record.offset + len(record.payload)


def _record_at(data: mmap.mmap, position: int) -> Record | None:
    if position + HEAD_BYTES > len(data):
        return None
    _, kind, trace_id, span_id, payload_bytes, checksum = _HEAD.unpack_from(data, position)
    begin = position + HEAD_BYTES
    if begin + payload_bytes > len(data) or kind not in Kind.__members__.values():
        return None
    payload, key = data[begin : begin + payload_bytes], SpoolKey(trace_id, span_id)
    if zlib.crc32(payload, zlib.crc32(bytes([kind]) + trace_id + span_id)) != checksum:
        return None
    return Record(Kind(kind), key, begin, payload)

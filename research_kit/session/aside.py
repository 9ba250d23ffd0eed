"""Entries that a server did not take for their content, for the command line.

Owns reading and dropping the files in which they are kept; setting aside is `dispatch`'s, and trying again
`delivery`'s. Invariant: nothing is dropped that a kernel which lives still writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships without types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from research_kit.session.spool import Spool
from research_kit.session.spool_file import Kind, Record, read_records
from research_kit.session.spools import REFUSED_SUFFIX, spool_paths
from research_kit.wire import plain_words

__all__ = ["Aside", "drop_aside", "list_aside"]

_AT_ONCE, _AT_ONCE_BYTES = 1000, 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """One entry that was set aside.

    Attributes:
        kind: ``observation`` or ``score``.
        name: Its name; empty when it cannot be read.
        trace_id: The trace of an observation, in hexadecimal; empty for scores.
        body_bytes: How large it is.
        reason: Why the server did not take it.
        path: The file that keeps it.
    """

    kind: str
    name: str
    trace_id: str
    body_bytes: int
    reason: str
    path: Path


def list_aside(folders: list[Path]) -> Iterator[Aside]:
    """Yield what is set aside in the folders of destinations, oldest first."""
    for path in [path for folder in folders for path in spool_paths(folder, REFUSED_SUFFIX)]:
        with suppress(OSError), path.open("rb") as file:  # one of somebody else, or just tried again
            yield from _entries(list(read_records(file)), path)


def drop_aside(folders: list[Path]) -> int:
    """Delete what is set aside, and return how many entries it was."""
    count = 0
    for path in [path for folder in folders for path in spool_paths(folder, REFUSED_SUFFIX)]:
        with suppress(OSError):
            spool = Spool.adopt(path)
            if spool is not None:
                count += spool.pending_count
                while batch := spool.take(max_count=_AT_ONCE, max_bytes=_AT_ONCE_BYTES):
                    spool.accept([entry for entry, _ in batch])
                spool.close()
    return count


def _entries(records: list[Record], path: Path) -> Iterator[Aside]:
    reason = ""
    for kind, key, _, payload in records:
        if kind is Kind.REASON:
            reason = payload.decode("utf-8", "replace")
        elif kind in (Kind.SPAN, Kind.SCORE):
            is_span = kind is Kind.SPAN
            yield Aside(
                kind="observation" if is_span else "score",
                name=plain_words(_span_name(payload) if is_span else _score_name(payload)),
                trace_id=key.trace_id.hex() if is_span else "",
                body_bytes=len(payload),
                reason=plain_words(reason),
                path=path,
            )
            reason = ""


def _span_name(payload: bytes) -> str:
    try:
        return str(
            ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans[0].name
        )
    except (DecodeError, IndexError):
        return ""


def _score_name(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["name"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""

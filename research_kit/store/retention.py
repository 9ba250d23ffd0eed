"""Old traces leave when the owner of the store has set a limit.

Owns which traces go; by default none. Invariant: a trace goes as a whole, with its scores, and the oldest
goes first.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from research_kit.store.database import Database
from research_kit.store.deletion import delete_traces
from research_kit.store.times import now_ms

__all__ = ["Limits", "apply_limits"]

_logger = logging.getLogger(__name__)
_DAY_MS = 86_400_000
# Few enough that writers wait for an instant only.
_BATCH = 200
# By the newest observation: a trace that still grows is not old.
_OLDEST = (
    "SELECT trace_id FROM observations GROUP BY trace_id HAVING max(start_ms) < ?"
    " ORDER BY max(start_ms) LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the store keeps.

    Attributes:
        max_age_days: Traces whose newest observation began earlier are deleted; None keeps all.
        max_bytes: The oldest traces are deleted while the rest takes more room; None keeps all.
    """

    max_age_days: float | None = None
    max_bytes: int | None = None


def apply_limits(database: Database, limits: Limits) -> int:
    """Delete what is beyond the limits, and return how many traces that were."""
    deleted_count = 0
    for trace_ids in _traces_beyond(database, limits):
        delete_traces(database, trace_ids)
        deleted_count += len(trace_ids)
    if deleted_count:
        _logger.warning(
            "Deleted %s traces that were beyond the limits of the store (%s).", deleted_count, limits
        )
    return deleted_count


def _traces_beyond(database: Database, limits: Limits) -> Iterator[list[str]]:
    """Yield batches of traces; the next one is looked for when the last is deleted."""
    if limits.max_age_days is not None:
        end_ms = now_ms() - int(limits.max_age_days * _DAY_MS)
        while trace_ids := _oldest(database, end_ms):
            yield trace_ids
    if limits.max_bytes is not None:
        while _used_bytes(database) > limits.max_bytes and (trace_ids := _oldest(database, now_ms())):
            yield trace_ids


def _oldest(database: Database, end_ms: int) -> list[str]:
    with database.reading() as connection:
        return [trace_id for (trace_id,) in connection.execute(_OLDEST, (end_ms, _BATCH))]


def _used_bytes(database: Database) -> int:
    """Return the bytes in use; what was deleted is used again before the file grows."""
    with database.reading() as connection:
        pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
        return pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

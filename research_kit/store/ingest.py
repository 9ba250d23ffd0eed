"""``POST /api/public/otel/v1/traces``: an export in, rows in the database.

Owns the order of the steps. Invariant: when the request is answered with 200, its spans are committed and
readable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers

from research_kit.store.answers import ApiError
from research_kit.store.database import Database
from research_kit.store.decoding import decode_export
from research_kit.store.observation_row import COLUMNS, ObservationRow
from research_kit.store.rows import make_row
from research_kit.store.spans import ExportError
from research_kit.store.times import now_ms

__all__ = ["ingest_traces", "insert_rows"]

_MAX_INGESTION_VERSION = 4
_LEADING_NUMBER = re.compile(r"\s*[+-]?\d{1,18}", re.ASCII)
# RELEASE is a word of SQL, so all names are quoted.
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_INSERT = f"INSERT OR REPLACE INTO observations ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"


def ingest_traces(database: Database, headers: Headers, body: bytes) -> int:
    """Store the spans of one export and return how many they are.

    Raises:
        ApiError: 400 when the export is refused; nothing of it is stored then.
    """
    try:
        spans = decode_export(
            body,
            content_type=headers.get("content-type", ""),
            content_encoding=headers.get("content-encoding", ""),
        )
        if spans:
            _check_version(headers.get("x-langfuse-ingestion-version", ""))
    except ExportError as error:
        raise ApiError(400, {"error": str(error)}) from error
    arrived_ms = now_ms()
    insert_rows(database, [make_row(span, now_ms=arrived_ms) for span in spans])
    return len(spans)


def insert_rows(database: Database, rows: Sequence[ObservationRow]) -> None:
    """Insert rows in one transaction; a row with the same ids and start replaces the one before."""
    if rows:
        with database.writing() as connection:
            connection.executemany(_INSERT, [row.values() for row in rows])


def _check_version(text: str) -> None:
    if not text:
        return
    number = _LEADING_NUMBER.match(text)
    if number is None or int(number[0]) > _MAX_INGESTION_VERSION:
        problem = f'Unsupported x-langfuse-ingestion-version: "{text}".'
        raise ExportError(f'{problem} Maximum supported: "{_MAX_INGESTION_VERSION}".')

"""Points in time between the wire (ISO text) and the database (milliseconds since 1970)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

__all__ = ["is_full_iso", "iso_to_ms", "ms_to_iso", "now_ms"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FULL_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def iso_to_ms(text: str) -> int:
    """Return the milliseconds of an ISO time, cut and not rounded; a time without zone is UTC.

    Raises:
        ValueError: When ``text`` is no ISO time.
    """
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def ms_to_iso(ms: int) -> str:
    """Return ``YYYY-MM-DDTHH:MM:SS.mmmZ``."""
    return (_EPOCH + ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_full_iso(text: str) -> bool:
    """Return whether ``text`` is a date with time and zone, which parameters of the API need."""
    if not _FULL_ISO.fullmatch(text):
        return False
    try:
        iso_to_ms(text)
    except (ValueError, OverflowError):
        return False
    return True


def now_ms() -> int:
    """Return the present time."""
    return time.time_ns() // 1_000_000

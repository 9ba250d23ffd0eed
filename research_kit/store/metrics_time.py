"""Buckets of time: which one a row falls into, what it is called, and the buckets without rows.

Owns the granularities. Invariant: buckets are whole numbers that grow by one, in SQL and here alike, so
gaps are found by counting.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from research_kit.store.times import ms_to_iso

__all__ = ["GRANULARITIES", "Granularity", "get_granularity"]

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_WEEK_MS = 7 * _DAY_MS
# Day 0 of the epoch is a Thursday, weeks begin on Mondays.
_WEEK_SHIFT_MS = 3 * _DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Granularity:
    """One width of buckets.

    Attributes:
        sql: The bucket of the time ``{time}`` (milliseconds).
        bucket_of: The same for a number.
        label_of: How a bucket is called in answers.
    """

    sql: str
    bucket_of: Callable[[int], int]
    label_of: Callable[[int], str]

    def buckets(self, from_ms: int, to_ms: int) -> Iterator[int]:
        """Yield the bucket that holds ``from_ms`` and all later ones before the one that holds ``to_ms``."""
        return iter(range(self.bucket_of(from_ms), self.bucket_of(to_ms)))


def _even(width_ms: int, *, shift_ms: int = 0, label_characters: int) -> Granularity:
    suffix = "Z" if label_characters > len("YYYY-MM-DD") else ""
    return Granularity(
        sql=f"(({{time}} + {shift_ms}) / {width_ms})",
        bucket_of=lambda time_ms: (time_ms + shift_ms) // width_ms,
        label_of=lambda bucket: ms_to_iso(bucket * width_ms - shift_ms)[:label_characters] + suffix,
    )


def _month_of(time_ms: int) -> int:
    year, month = ms_to_iso(time_ms).split("-")[:2]
    return int(year) * 12 + int(month) - 1


def _month_label(bucket: int) -> str:
    moment = datetime(bucket // 12, bucket % 12 + 1, 1, tzinfo=UTC)
    return ms_to_iso(calendar.timegm(moment.timetuple()) * 1000)[:10]


_SECOND_LABEL = len("2026-11-20T09:00:00")
_DAY_LABEL = len("2026-11-20")

GRANULARITIES = {
    "minute": _even(_MINUTE_MS, label_characters=_SECOND_LABEL),
    "hour": _even(_HOUR_MS, label_characters=_SECOND_LABEL),
    "day": _even(_DAY_MS, label_characters=_DAY_LABEL),
    "week": _even(_WEEK_MS, shift_ms=_WEEK_SHIFT_MS, label_characters=_DAY_LABEL),
    "month": Granularity(
        sql=(
            "(strftime('%Y', {time} / 1000, 'unixepoch') * 12"
            " + strftime('%m', {time} / 1000, 'unixepoch') - 1)"
        ),
        bucket_of=_month_of,
        label_of=_month_label,
    ),
}

# The first of these that is longer than the range decides what `auto` means; longer ranges are cut by month.
_AUTO = (
    (2 * _HOUR_MS, "minute"),
    (72 * _HOUR_MS, "hour"),
    (60 * _DAY_MS, "day"),
    (365 * _DAY_MS, "week"),
)


def get_granularity(name: str, from_ms: int, to_ms: int) -> Granularity:
    """Return the granularity of that name; ``auto`` depends on the length of the range."""
    if name == "auto":
        name = next((fitting for limit_ms, fitting in _AUTO if to_ms - from_ms < limit_ms), "month")
    return GRANULARITIES[name]

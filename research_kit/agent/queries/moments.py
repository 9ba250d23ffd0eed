"""Points and spans of time that a model wrote.

Owns how they may be written: as ISO 8601, so that nothing guesses.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from research_kit.agent.queries.answers import QueryError, show

if TYPE_CHECKING:
    from research_kit.agent.queries.columns import Column

__all__ = ["moment_ns", "span_ns"]

_MOMENT = re.compile(
    r"\d{4}(-\d\d?(-\d\d?([T ]\d\d?:\d\d(:\d\d(\.\d{1,9})?)?)?)?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?", re.ASCII
)
_SPAN = re.compile(
    r"(-?\d{1,9}(\.\d{1,9})? ?[a-z]{1,12},? ?)?([+-]?\d\d?:\d\d:\d\d(\.\d{1,9})?)?", re.ASCII | re.IGNORECASE
)


def moment_ns(text: str, column: Column, *, zone: str | None) -> int:
    """Return a point in time as nanoseconds since 1970, to compare with ``column``.

    Args:
        text: What was written.
        column: A column of points in time.
        zone: The time zone of a text without one, when the column has one; None means the column's own.

    Raises:
        QueryError: When it is none, or has a time zone and the column has not.
    """
    import pandas as pd

    own_zone = column.series.dt.tz
    written = text.strip()
    try:
        if not _MOMENT.fullmatch(written):
            raise ValueError(written)
        moment = pd.Timestamp(written)
    except ValueError:
        raise QueryError(
            f"the column {column.name!r} holds points in time, and {show(text)!r} is none. Write it as "
            "'2024-01-31' or '2024-01-31 12:30:00'."
        ) from None
    if moment.tz is not None and own_zone is None:
        raise QueryError(
            f"the values do not allow it: the points in time of {column.name!r} have no time zone, and "
            f"{show(text)!r} has one."
        )
    if moment.tz is None and own_zone is not None:
        moment = moment.tz_localize(zone or own_zone)
    # Python's own: pandas' nanoseconds end in 2262.
    began = datetime(1970, 1, 1, tzinfo=None if moment.tz is None else UTC)
    microseconds = (moment.to_pydatetime(warn=False) - began) // timedelta(microseconds=1)
    return microseconds * 1_000 + moment.nanosecond


def span_ns(text: str, column_name: str) -> int:
    """Return a span of time in nanoseconds.

    Raises:
        QueryError: When it is none.
    """
    import pandas as pd

    written = text.strip()
    try:
        if not written or not _SPAN.fullmatch(written):
            raise ValueError(written)
        return int(pd.Timedelta(written).value)
    except ValueError:
        raise QueryError(
            f"the column {column_name!r} holds spans of time, and {show(text)!r} is none. Write it as "
            "'2 days' or '0 days 01:30:00'."
        ) from None

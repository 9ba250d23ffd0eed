"""When a server asks to come back.

Owns the reading of ``Retry-After``: seconds or a date from most servers, anything from hostile ones.
Invariant: the answer is None, or a number of seconds from 0 to a week.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["retry_after_s"]

_LONGEST_S = 7 * 86_400.0
_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait; None when it does not say so in words that have a meaning."""
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_S)
    try:
        moment = parsedate_to_datetime(text)
        # A date without a zone is UTC, as all of HTTP is.
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        wait_s = (aware - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _LONGEST_S)

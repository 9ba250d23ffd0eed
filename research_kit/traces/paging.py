"""From page to page, as long as the server moves on.

Owns page sizes, and when a read has cost enough; sends nothing and reads no values. Invariant: a server that
points to a further page for ever ends in an error, after a bounded number of pages and bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

from research_kit.errors import BackendError

__all__ = ["DEFAULT_READ_MB", "Allowance", "Page", "PageSize", "PageWatch", "read_page"]

DEFAULT_READ_MB = 2048.0
_MAX_PAGES = 100_000
# A healthy server fills every page but the last.
_MAX_THIN_PAGES = 100
_MAX_CURSOR_CHARACTERS = 4096
_FITS_BEFORE_GROWTH = 8


class Page(NamedTuple):
    """The rows of one answer; the cursor is None on the last page."""

    rows: list[dict[str, Any]]
    cursor: str | None


class PageSize:
    """How many rows fit into an answer: fewer after a refusal, more again after a while without one."""

    def __init__(self, most: int) -> None:
        self.rows = self._most = most
        self._fits = 0

    def shrink(self, rows: int) -> None:
        """Ask for no more than ``rows``."""
        self.rows, self._fits = min(self.rows, rows), 0

    def note_fit(self) -> None:
        """Count an answer that fitted."""
        self._fits += 1
        if self._fits >= _FITS_BEFORE_GROWTH:
            self.rows, self._fits = min(self.rows * 2, self._most), 0


class Allowance:
    """What all pages of one read may cost together, whichever threads read them.

    Args:
        base_url: The server, for messages.
        max_mb: How many million bytes; None sets no limit.
    """

    def __init__(self, base_url: str, max_mb: float | None) -> None:
        self._base_url, self._max_mb = base_url, max_mb
        self._lock = Lock()
        self._bytes = self._pages = 0

    def spend(self, body_bytes: int) -> None:
        """Count a page.

        Raises:
            BackendError: When the read has cost enough.
        """
        with self._lock:
            self._bytes += body_bytes
            self._pages += 1
            is_too_long = self._max_mb is not None and self._bytes > self._max_mb * 1e6
        if is_too_long:
            raise _failure(
                self._base_url,
                f"it has sent more than {self._max_mb:g} MB for one read. Read less with start_time and "
                "end_time, read it piece by piece with iter_tables, or raise RESEARCH_KIT_READ_MAX_MB.",
            )
        if self._pages > _MAX_PAGES:
            raise _failure(
                self._base_url, f"it has sent {_MAX_PAGES:,} pages for one read, and points to more."
            )


class PageWatch:
    """Whether the pages behind one question bring something new.

    Args:
        base_url: The server, for messages.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._seen: set[int] = set()
        self._thin_count = 0

    def check(self, page: Page, cursor: str | None, asked_rows: int) -> None:
        """Look at a page that is not the last.

        Args:
            page: The page.
            cursor: The cursor that it was asked for with.
            asked_rows: How many rows were asked for.

        Raises:
            BackendError: When the server does not move on.
        """
        rows = frozenset(map(_identity, page.rows))
        if not rows or page.cursor == cursor or hash(rows) in self._seen:
            raise _failure(
                self._base_url,
                "the server points to a further page but does not move on. Narrow the read with start_time "
                "and end_time.",
            )
        self._seen.add(hash(rows))
        self._thin_count = self._thin_count + 1 if 2 * len(rows) < asked_rows else 0
        if self._thin_count > _MAX_THIN_PAGES:
            raise _failure(
                self._base_url,
                f"{_MAX_THIN_PAGES} pages in a row had hardly any rows, and the server points to more. "
                "Narrow the read with start_time and end_time.",
            )


def read_page(body: Mapping[str, Any], base_url: str) -> Page:
    """Return the rows and the cursor of an answer.

    Raises:
        BackendError: When it is not what a Langfuse server answers.
    """
    rows, meta = body.get("data"), body.get("meta") or {}
    cursor = meta.get("cursor") if isinstance(meta, dict) else meta
    is_list = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not is_list or not _is_cursor(cursor):
        what = "has no list 'data'" if not is_list else "has a cursor that is none"
        raise BackendError(
            f"Cannot read traces from {base_url}: the answer {what}. "
            "Check that LANGFUSE_BASE_URL is a Langfuse server of version 4 or later.",
            base_url=base_url,
        )
    return Page(body["data"], cursor)


def _is_cursor(cursor: object) -> bool:
    return cursor is None or (isinstance(cursor, str) and 0 < len(cursor) <= _MAX_CURSOR_CHARACTERS)


def _identity(row: Mapping[str, Any]) -> str:
    return f"{row.get('traceId')} {row.get('id')} {row.get('startTime')}"


def _failure(base_url: str, problem: str) -> BackendError:
    return BackendError(f"Cannot read all traces from {base_url}: {problem}", base_url=base_url)

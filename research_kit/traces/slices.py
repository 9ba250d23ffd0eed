"""Long reads, cut into slices of time that are read side by side, as Arrow tables.

Owns how a read is divided; requests are the reader's. Invariant: the slices of a read cover its whole
range, and overlap by no more than a millisecond; when the read ends, however it ends, nothing of it goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from research_kit.errors import BackendError
from research_kit.traces.paging import Allowance, Page
from research_kit.traces.progress import Progress
from research_kit.traces.query import ObservationQuery
from research_kit.traces.reader import TraceReader
from research_kit.traces.schema import OBSERVATION_SOURCE
from research_kit.traces.tables import build_table
from research_kit.traces.transport import STOP

__all__ = ["EMPTY", "SlicedRead", "iter_page_tables"]

EMPTY = build_table(OBSERVATION_SOURCE, [])

_WORKERS = 4
_PAGES_BEFORE_SLICES = 4  # shorter reads are not worth the requests for slices that may be empty
_REFUSED = (400, 401, 403, 404)
_MS = timedelta(milliseconds=1)


class _Part(NamedTuple):
    """What one worker read, and what it leaves to others."""

    tables: list[pa.Table]
    rest: list[ObservationQuery]
    failures: list[BackendError]


@dataclass(slots=True)
class SlicedRead:
    """Reads all observations of a query.

    Attributes:
        reader: Where to read from.
        progress: Is told of every page.
        is_strict: False goes on after a failed slice and keeps the failure.
        failures: What could not be read.
        allowance: What all slices together may cost.
    """

    reader: TraceReader
    progress: Progress
    is_strict: bool = True
    failures: list[BackendError] = field(default_factory=list)
    allowance: Allowance = field(init=False)

    def __post_init__(self) -> None:
        self.allowance = self.reader.new_allowance()

    def read(self, query: ObservationQuery) -> pa.Table:
        """Return the rows in no order; those at the edges of slices may be there twice.

        Raises:
            BackendError: When the server cannot be read; if not strict, only when it gave nothing at all.
        """
        tables = self._read_here(query) if self.reader.is_local else self._read_side_by_side(query)
        if self.failures and (not tables or self.failures[0].status_code in _REFUSED):
            raise self.failures[0]
        return pa.concat_tables([EMPTY, *tables])

    def _read_here(self, query: ObservationQuery) -> list[pa.Table]:
        """Read one page after another: a server on this machine is not faster when asked side by side."""
        return self._keep(self._read_part(query, cuts=False))

    def _read_side_by_side(self, query: ObservationQuery) -> list[pa.Table]:
        stop = STOP.get() or threading.Event()
        token = STOP.set(stop)
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="research-kit-read")
        try:
            return self._run(pool, query)
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            STOP.reset(token)

    def _run(self, pool: ThreadPoolExecutor, query: ObservationQuery) -> list[pa.Table]:
        tables: list[pa.Table] = []
        running: set[Future[_Part]] = {self._submit(pool, query)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for part in (future.result() for future in done):
                tables += self._keep(part)
                running |= {self._submit(pool, rest) for rest in part.rest}
        return tables

    def _submit(self, pool: ThreadPoolExecutor, query: ObservationQuery) -> Future[_Part]:
        return pool.submit(copy_context().run, self._read_part, query)

    def _keep(self, part: _Part) -> list[pa.Table]:
        self.failures += part.failures
        return part.tables

    def _read_part(self, query: ObservationQuery, *, cuts: bool = True) -> _Part:
        tables: list[pa.Table] = []
        try:
            for page in self.reader.list_observation_pages(query, allowance=self.allowance):
                tables.append(build_table(OBSERVATION_SOURCE, page.rows))
                self.progress.add(tables[-1].num_rows)
                is_last = page.cursor is None
                del page  # its many objects would stay in memory beside those of the next one
                if cuts and len(tables) >= _PAGES_BEFORE_SLICES and not is_last:
                    rest = _rest(query, tables)
                    if rest:
                        return _Part(tables, rest, [])
        except BackendError as error:
            if self.is_strict:
                raise
            return _Part(tables, [], [_naming_range(error, query, tables)])
        return _Part(tables, [], [])


def iter_page_tables(pages: Iterator[Page], rows_per_table: int) -> Iterator[pa.Table]:
    """Yield tables of about ``rows_per_table`` rows, so that no more than these are in memory."""
    tables: list[pa.Table] = []
    for page in pages:
        tables.append(build_table(OBSERVATION_SOURCE, page.rows))
        if sum(table.num_rows for table in tables) >= rows_per_table:
            yield pa.concat_tables(tables).combine_chunks()
            tables = []
    if tables:
        yield pa.concat_tables(tables).combine_chunks()


def _rest(query: ObservationQuery, tables: list[pa.Table]) -> list[ObservationQuery]:
    """Return the slices before what was read, each as long as that; none when it cannot be divided.

    Without a beginning, the last slice is open: it is divided in the same way when it turns out to be long.
    """
    times = pc.min_max(pa.chunked_array([column for t in tables for column in t["start_time"].chunks]))
    newest, oldest = (_datetime(times[name]) for name in ("max", "min"))
    end = oldest + _MS  # rows of the same millisecond may follow
    if query.end_time is not None and end >= query.end_time:
        return []  # all of one millisecond, which cannot be divided
    length = max(newest - oldest, _MS)
    slices = []
    for _ in range(_WORKERS - 1):
        start = end - length
        if query.start_time is not None and start <= query.start_time:
            break
        slices.append(replace(query, start_time=start, end_time=end))
        end = start
    return [*slices, replace(query, end_time=end)]


def _naming_range(error: BackendError, query: ObservationQuery, tables: list[pa.Table]) -> BackendError:
    """Return the error with the range of time that is missing because of it."""
    until = query.end_time if not tables else _datetime(pc.min(tables[-1]["start_time"])) + _MS
    begin = "the beginning" if query.start_time is None else query.start_time.isoformat()
    end = "now" if until is None else until.isoformat()
    return BackendError(
        f"{error} Missing is what began between {begin} and {end}.",
        base_url=error.base_url,
        status_code=error.status_code,
    )


def _datetime(moment: Any) -> datetime:
    value: datetime = moment.cast(pa.timestamp("us", tz="UTC")).as_py()
    return value

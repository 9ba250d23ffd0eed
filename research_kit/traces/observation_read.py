"""One read of observations: from the cache what is kept, the rest from the server, and the failures.

Owns the order of these steps and the answer to a session that does not exist; builds no frames of pandas.
Invariant: nothing is left out silently: it warns, raises, or is among the failures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

import pyarrow as pa

from research_kit._notices import warn_user
from research_kit.errors import BackendError, ConfigError
from research_kit.traces.cache import TraceCache
from research_kit.traces.defaults import is_bound
from research_kit.traces.options import Options
from research_kit.traces.placing import place
from research_kit.traces.progress import Progress
from research_kit.traces.query import ObservationQuery
from research_kit.traces.reader import TraceReader
from research_kit.traces.schema import OBSERVATION_SOURCE
from research_kit.traces.slices import EMPTY, SlicedRead
from research_kit.traces.tables import build_table

__all__ = ["Reading", "check_session", "read_observations"]

_RECENT = 1000


@dataclass(slots=True)
class Reading:
    """What a read gave.

    Attributes:
        table: The observations, placed in their traces and ordered by start.
        is_truncated: Whether a limit left rows out.
        failures: What could not be read.
    """

    table: pa.Table
    is_truncated: bool = False
    failures: list[BackendError] = field(default_factory=list)

    def take_table(self) -> pa.Table:
        """Return the table and let go of it, so that what is made of it can take its memory."""
        table, self.table = self.table, EMPTY
        return table


def read_observations(
    source: TraceReader, query: ObservationQuery, options: Options, *, limit: int | None = None
) -> Reading:
    """Read the observations of ``query``.

    Raises:
        BackendError: When the server cannot be read.
        ConfigError: When there is no such session, or ``limit`` cannot be used.
    """
    found = _read_all(source, query, options) if limit is None else _read_newest(source, query, limit)
    if not found.table.num_rows and query.session_id is not None and not is_bound(query.session_id):
        check_session(source, query.session_id)
    if found.is_truncated:
        warn_user(f"Only the newest {limit} observations are in the frame; there are more. Raise limit.")
    if found.failures:
        warn_user(f"{len(found.failures)} parts could not be read and are missing; see the errors.")
    found.table = place(found.take_table())
    return found


def _read_newest(source: TraceReader, query: ObservationQuery, limit: int) -> Reading:
    tables, cursor = [EMPTY], None
    for page in source.list_observation_pages(query, limit):
        tables.append(build_table(OBSERVATION_SOURCE, page.rows))
        cursor = page.cursor
    return Reading(pa.concat_tables(tables), is_truncated=cursor is not None)


def _read_all(source: TraceReader, query: ObservationQuery, options: Options) -> Reading:
    cache = options.cache_for(source)
    if cache is not None and options.refresh:
        cache.forget(query)
    tables, gaps = ([], [query]) if cache is None else cache.load(query)
    failures: list[BackendError] = []
    with Progress(options.progress) as progress:
        for gap in gaps:
            read = SlicedRead(source, progress, is_strict=options.strict)
            tables.append(_read_gap(read, gap, cache))
            failures += read.failures
    return Reading(pa.concat_tables([EMPTY, *tables]), failures=failures)


def _read_gap(read: SlicedRead, gap: ObservationQuery, cache: TraceCache | None) -> pa.Table:
    if cache is None:
        return read.read(gap)
    closed_until = cache.closed_until()  # taken before the read, which may take long
    table = read.read(gap)
    if not read.failures:
        try:
            cache.keep(gap, place(table).select(EMPTY.column_names), closed_until)
        except (OSError, ConfigError) as error:
            warn_user(
                f"What was read cannot be kept in {cache.root}: {error}. Free space, or pass cache=False."
            )
    return table


def check_session(source: TraceReader, session_id: str) -> None:
    """Refuse a session that has no observations at all, and say which have a similar id.

    Raises:
        BackendError: When the server cannot be read.
        ConfigError: When there is no such session.
    """
    session = ObservationQuery(session_id=session_id, includes_io=False)
    if source.read_observations(session, limit=1).rows:
        return
    recent = source.read_observations(ObservationQuery(includes_io=False), limit=_RECENT).rows
    known = sorted({row.get("sessionId") or "" for row in recent} - {""})
    similar = get_close_matches(session_id, known, n=3)
    hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
    raise ConfigError(
        f"Project {source.read_project_name()!r} of {source.base_url} has no observations of session "
        f"{session_id!r}.{hint} New ones can be read some seconds after they were sent: "
        "wait_for(session_id, 1) waits for them. Another project is read with its own keys."
    )

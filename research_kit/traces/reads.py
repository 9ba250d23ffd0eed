"""The frames that a notebook asks for: read from the server of this process, one row per named thing.

Owns the defaults (which session, which server) and the warnings; reading, building and summing up are
elsewhere.
Invariant: nothing is left out silently; `frame.attrs["is_truncated"]` says whether `limit` cut rows off.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches

import pandas as pd

from research_kit.errors import BackendError
from research_kit.traces.defaults import bound_session, is_bound, open_reader
from research_kit.traces.frames import build_frame
from research_kit.traces.notices import warn_user
from research_kit.traces.query import ObservationQuery, check_limit, to_utc
from research_kit.traces.reader import TraceReader
from research_kit.traces.rollup import roll_up_cells, roll_up_messages, roll_up_sessions, roll_up_traces
from research_kit.traces.schema import OBSERVATIONS, SCORES
from research_kit.traces.wire import with_depth

__all__ = [
    "ALL_SESSIONS",
    "cells_df",
    "generations_df",
    "messages_df",
    "observations_df",
    "scores_df",
    "sessions_df",
    "traces_df",
    "wait_for",
]

ALL_SESSIONS = "*"
_RECENT = 1000
_POLL_S = 0.25


def observations_df(
    session_id: str | None = None,
    *,
    trace_id: str | None = None,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
    limit: int | None = None,
    reader: TraceReader | None = None,
) -> pd.DataFrame:
    """Return one row per observation, ordered by ``start_time``; the columns are in docs/frames.md.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        trace_id: Only this trace; without ``session_id`` it is looked for in all sessions.
        start_time: Only what began then or later; without a time zone it is taken as local time.
        end_time: Only what began earlier.
        limit: At most so many, the newest; warns when there are more.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When no session is bound, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    query = _query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return _read(query, limit=limit, reader=reader)


def generations_df(
    session_id: str | None = None,
    *,
    trace_id: str | None = None,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
    limit: int | None = None,
    reader: TraceReader | None = None,
) -> pd.DataFrame:
    """Return one row per LM call, ordered by ``start_time``, with the columns of `observations_df`.

    Only generations are downloaded, so ``depth`` is known for roots alone. The arguments and errors are those
    of `observations_df`.
    """
    query = _query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return _read(replace(query, type="GENERATION"), limit=limit, reader=reader)


def traces_df(
    session_id: str | None = None,
    *,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
    limit: int | None = None,
    reader: TraceReader | None = None,
) -> pd.DataFrame:
    """Return one row per trace, ordered by ``start_time``, with counts and sums over its observations.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        start_time: Count only observations that began then or later.
        end_time: Count only observations that began earlier.
        limit: At most so many traces, the newest; warns when there are more.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When no session is bound, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    query = replace(_query(session_id, start_time=start_time, end_time=end_time), includes_io=False)
    return _newest(roll_up_traces(_read(query, reader=reader)), limit, "traces")


def sessions_df(
    *,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
    limit: int | None = None,
    reader: TraceReader | None = None,
) -> pd.DataFrame:
    """Return one row per session of the project, ordered by ``start_time``, with counts and sums.

    All observations between the two times are read for it, without inputs and outputs.

    Args:
        start_time: Count only observations that began then or later.
        end_time: Count only observations that began earlier.
        limit: At most so many sessions, those that began last; warns when there are more.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    query = _query(ALL_SESSIONS, start_time=start_time, end_time=end_time)
    return _newest(
        roll_up_sessions(_read(replace(query, includes_io=False), reader=reader)), limit, "sessions"
    )


def messages_df(session_id: str | None = None, *, reader: TraceReader | None = None) -> pd.DataFrame:
    """Return the conversation of a session: one row per chat message, in order, with answer and cost.

    A chat message is a trace whose root observation is named ``chat``.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When no session is bound.
        BackendError: When the server cannot be read.
    """
    return _newest(roll_up_messages(_read(_query(session_id), reader=reader)), None, "messages")


def cells_df(session_id: str | None = None, *, reader: TraceReader | None = None) -> pd.DataFrame:
    """Return one row per execution of a notebook cell in which something was observed, with its cost.

    What a cell's threads did counts in; chat messages are rows of `messages_df` instead.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When no session is bound.
        BackendError: When the server cannot be read.
    """
    query = replace(_query(session_id), includes_io=False)
    return _newest(roll_up_cells(_read(query, reader=reader)), None, "cells")


def scores_df(session_id: str | None = None, *, reader: TraceReader | None = None) -> pd.DataFrame:
    """Return one row per score of a session, its traces and their observations, ordered by ``timestamp``.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        ConfigError: When no session is bound.
        BackendError: When the server cannot be read.
    """
    query = replace(_query(session_id), includes_io=False)
    with open_reader(reader) as source:
        if query.session_id is None:
            rows = list(source.list_scores())
        else:
            trace_ids = sorted({row["traceId"] for row in source.list_observations(query)})
            rows = list(source.list_scores(session_id=query.session_id))
            rows += source.list_scores(trace_ids=trace_ids)
    frame = build_frame(SCORES, rows).sort_values("timestamp", kind="stable", ignore_index=True)
    return _newest(frame, None, "scores")


def wait_for(
    session_id: str,
    observation_count: int,
    *,
    timeout_s: float = 15.0,
    reader: TraceReader | None = None,
) -> None:
    """Wait until at least so many observations of a session can be read.

    A server shows new observations only some time after it has accepted them.

    Args:
        session_id: The session.
        observation_count: How many observations to wait for.
        timeout_s: How long to wait at most.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        BackendError: When the server cannot be read, or fewer observations came in time.
        ConfigError: When ``observation_count`` is not a whole number from 1 on.
    """
    check_limit(observation_count)
    query = ObservationQuery(session_id=session_id, includes_io=False)
    with open_reader(reader) as source:
        deadline_s = source.clock.now_s() + timeout_s
        while True:
            found = len(source.read_observations(query, limit=observation_count).rows)
            if found >= observation_count:
                return
            if source.clock.now_s() >= deadline_s:
                raise BackendError(
                    f"Only {found} of {observation_count} observations of session {session_id!r} can be read "
                    f"from {source.base_url} after {timeout_s:g} s. Wait longer with timeout_s=..., or check "
                    "that they were sent.",
                    base_url=source.base_url,
                )
            source.clock.sleep_s(_POLL_S)


def _query(
    session_id: str | None,
    *,
    trace_id: str | None = None,
    start_time: datetime | str | None = None,
    end_time: datetime | str | None = None,
) -> ObservationQuery:
    if session_id is None and trace_id is None:
        session_id = bound_session()
    return ObservationQuery(
        session_id=None if session_id == ALL_SESSIONS else session_id,
        trace_id=trace_id,
        start_time=to_utc(start_time, name="start_time"),
        end_time=to_utc(end_time, name="end_time"),
    )


def _read(
    query: ObservationQuery, *, limit: int | None = None, reader: TraceReader | None = None
) -> pd.DataFrame:
    with open_reader(reader) as source:
        read = source.read_observations(query, limit=limit)
        if not read.rows and query.session_id is not None and not is_bound(query.session_id):
            _warn_unknown_session(source, query)
    if read.is_truncated:
        warn_user(f"Only the newest {limit} observations are in the frame; there are more. Raise limit.")
    frame = build_frame(OBSERVATIONS, with_depth(read.rows))
    frame.attrs["is_truncated"] = read.is_truncated
    return frame


def _warn_unknown_session(source: TraceReader, query: ObservationQuery) -> None:
    """Say which sessions have a similar id, when the session has no observations at all."""
    session_id = query.session_id or ""
    if source.read_observations(ObservationQuery(session_id=session_id, includes_io=False), limit=1).rows:
        return
    recent = source.read_observations(ObservationQuery(includes_io=False), limit=_RECENT).rows
    known = sorted({row.get("sessionId") or "" for row in recent} - {""})
    similar = get_close_matches(session_id, known, n=3)
    hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
    warn_user(
        f"{source.base_url} has no observations of session {session_id!r} yet. New ones can be read some "
        f"seconds after they were sent.{hint}"
    )


def _newest(frame: pd.DataFrame, limit: int | None, what: str) -> pd.DataFrame:
    check_limit(limit)
    is_truncated = limit is not None and len(frame) > limit
    if is_truncated:
        warn_user(f"Only the newest {limit} of {len(frame)} {what} are in the frame. Raise limit.")
        frame = frame.tail(limit).reset_index(drop=True)  # type: ignore[arg-type] # not None when truncated
    frame.attrs["is_truncated"] = is_truncated
    return frame

"""The frames that a notebook asks for: read from the server of this process, one row per named thing.

Owns the public functions and what they have in common; reading, building and summing up are elsewhere.
Invariant: nothing is left out silently; `frame.attrs["is_truncated"]` says whether `limit` cut rows off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack

import pandas as pd
import pyarrow as pa

from research_kit.errors import BackendError
from research_kit.traces.counting import count_once
from research_kit.traces.defaults import bound_session, open_reader
from research_kit.traces.frames import build_frame
from research_kit.traces.notices import warn_user
from research_kit.traces.options import Options, ReadOptions
from research_kit.traces.query import ObservationQuery, check_limit, to_utc
from research_kit.traces.reader import TraceReader
from research_kit.traces.reading import Reading, read_observations
from research_kit.traces.rollup import roll_up_cells, roll_up_messages, roll_up_sessions, roll_up_traces
from research_kit.traces.schema import (
    CELLS,
    MESSAGES,
    OBSERVATIONS,
    SCORES,
    SESSIONS,
    TOOL_CALLS,
    TRACES,
    Schema,
)
from research_kit.traces.scoring import with_scores
from research_kit.traces.slices import iter_page_tables
from research_kit.traces.tables import as_kind, to_pandas

__all__ = [
    "ALL_SESSIONS",
    "cells_df",
    "generations_df",
    "iter_tables",
    "messages_df",
    "observations_df",
    "scores_df",
    "sessions_df",
    "tool_calls_df",
    "traces_df",
    "wait_for",
]

ALL_SESSIONS = "*"
_POLL_S = 0.25

Frame = Any
"""A pandas DataFrame, unless ``as_`` or ``strict`` ask for something else."""
Moment = datetime | str | None


def observations_df(
    session_id: str | None = None,
    *,
    trace_id: str | None = None,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per observation, ordered by ``start_time``; the columns are in docs/frames.md.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        trace_id: Only this trace; without ``session_id`` it is looked for in all sessions.
        start_time: Only what began then or later; without a time zone it is taken as local time.
        end_time: Only what began earlier.
        limit: At most so many, the newest; warns when there are more. Such a read is not kept.
        **options: `ReadOptions`: ``reader``, ``as_``, ``cache``, ``refresh``, ``strict``, ``progress``,
            ``scores``, ``includes_io``, ``full_metadata``.

    Raises:
        ConfigError: When no session is bound, the session does not exist, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    query = _query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return _observations(query, Options.of(options), limit)


def generations_df(
    session_id: str | None = None,
    *,
    trace_id: str | None = None,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per LM call, ordered by ``start_time``, with the columns of `observations_df`.

    Only generations are downloaded, so ``depth`` and ``path`` are known for roots alone. The arguments and
    errors are those of `observations_df`.
    """
    query = _query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return _observations(replace(query, type="GENERATION"), Options.of(options), limit)


def tool_calls_df(
    session_id: str | None = None,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per tool call, ordered by ``start_time``, with its arguments as ``input``.

    The parts that one call is made of, such as both sides of an MCP call, are one row. The arguments and
    errors are those of `traces_df`.
    """

    def choose(frame: pd.DataFrame) -> pd.DataFrame:
        names = [column.name for column in TOOL_CALLS]
        return frame.loc[count_once(frame)["is_tool_call"], names].reset_index(drop=True)

    query = _query(session_id, start_time=start_time, end_time=end_time)
    return _summary(
        query, Options.of(options), limit, _Summary(choose, TOOL_CALLS, "tool calls", "observation")
    )


def traces_df(
    session_id: str | None = None,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per trace, ordered by ``start_time``, with counts and sums over its observations.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        start_time: Count only observations that began then or later.
        end_time: Count only observations that began earlier.
        limit: At most so many rows, the newest; warns when there are more.
        **options: `ReadOptions`, as in `observations_df`.

    Raises:
        ConfigError: When no session is bound, the session does not exist, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    query = replace(_query(session_id, start_time=start_time, end_time=end_time), includes_io=False)
    return _summary(query, Options.of(options), limit, _Summary(roll_up_traces, TRACES, "traces", "trace"))


def sessions_df(
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per session of the project, ordered by ``start_time``, with counts and sums.

    All observations between the two times are read for it, without inputs and outputs. The arguments and
    errors are those of `traces_df`.
    """
    query = replace(_query(ALL_SESSIONS, start_time=start_time, end_time=end_time), includes_io=False)
    return _summary(
        query, Options.of(options), limit, _Summary(roll_up_sessions, SESSIONS, "sessions", "session")
    )


def messages_df(session_id: str | None = None, **options: Unpack[ReadOptions]) -> Frame:
    """Return the conversation of a session: one row per chat message, in order, with answer and cost.

    A chat message is a trace whose root observation is named ``chat``.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        **options: `ReadOptions`, as in `observations_df`.

    Raises:
        ConfigError: When no session is bound, or the session does not exist.
        BackendError: When the server cannot be read.
    """
    summary = _Summary(roll_up_messages, MESSAGES, "messages", "trace")
    return _summary(_query(session_id), Options.of(options), None, summary)


def cells_df(session_id: str | None = None, **options: Unpack[ReadOptions]) -> Frame:
    """Return one row per execution of a notebook cell in which something was observed, with its cost.

    What a cell's threads did counts in; chat messages are rows of `messages_df` instead. The arguments and
    errors are those of `messages_df`.
    """
    query = replace(_query(session_id), includes_io=False)
    return _summary(query, Options.of(options), None, _Summary(roll_up_cells, CELLS, "cells", "trace"))


def scores_df(session_id: str | None = None, **options: Unpack[ReadOptions]) -> Frame:
    """Return one row per score of a session, its traces and their observations, ordered by ``timestamp``.

    Scores are always read from the server: they are few, and given to old traces as well. The arguments and
    errors are those of `messages_df`.
    """
    chosen = Options.of(options)
    query = replace(_query(session_id), includes_io=False)
    with open_reader(chosen.reader) as source:
        trace_ids = None if query.session_id is None else _trace_ids(source, query)
        frame = _read_scores(source, query, trace_ids)
    return _finish(frame, SCORES, chosen, Reading(pa.table({})))


def iter_tables(
    session_id: str | None = None,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    rows_per_table: int = 10_000,
    reader: TraceReader | None = None,
    includes_io: bool = True,
) -> Iterator[pa.Table]:
    """Yield observations as Arrow tables, newest first, for data that does not fit into memory.

    The columns are those of `observations_df` that need no other row: all but ``parent_name``, ``depth`` and
    ``path``. Inputs, outputs and metadata are JSON texts.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        start_time: Only what began then or later.
        end_time: Only what began earlier.
        rows_per_table: About so many rows are in memory at a time.
        reader: Where to read from; None means where the traces of this process go.
        includes_io: False leaves inputs and outputs out.

    Raises:
        ConfigError: When no session is bound, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    check_limit(rows_per_table)
    query = _query(session_id, start_time=start_time, end_time=end_time)
    with open_reader(reader) as source:
        pages = source.list_observation_pages(replace(query, includes_io=includes_io))
        yield from iter_page_tables(pages, rows_per_table)


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


class _Summary:
    """How a frame is made of observations: function, columns, word for its rows, and what is scored."""

    def __init__(
        self, make: Callable[[pd.DataFrame], pd.DataFrame], schema: Schema, rows: str, subject: str
    ) -> None:
        self.make, self.schema, self.rows, self.subject = make, schema, rows, subject


def _query(
    session_id: str | None,
    *,
    trace_id: str | None = None,
    start_time: Moment = None,
    end_time: Moment = None,
) -> ObservationQuery:
    if session_id is None and trace_id is None:
        session_id = bound_session()
    return ObservationQuery(
        session_id=None if session_id == ALL_SESSIONS else session_id,
        trace_id=trace_id,
        start_time=to_utc(start_time, name="start_time"),
        end_time=to_utc(end_time, name="end_time"),
    )


def _asked(query: ObservationQuery, options: Options) -> ObservationQuery:
    return replace(
        query,
        includes_io=query.includes_io and options.includes_io,
        has_full_metadata=options.full_metadata,
    )


def _observations(query: ObservationQuery, options: Options, limit: int | None) -> Frame:
    with open_reader(options.reader) as source:
        found = read_observations(source, _asked(query, options), options, limit=limit)
        if not options.scores:
            return _with_failures(
                _marked(as_kind(found.table, OBSERVATIONS, options.as_), found), options, found
            )
        frame = to_pandas(found.table, OBSERVATIONS)
        frame = with_scores(frame, _scores_of(source, query, frame), "observation")
    return _finish(frame, OBSERVATIONS, options, found)


def _summary(query: ObservationQuery, options: Options, limit: int | None, summary: _Summary) -> Frame:
    check_limit(limit)
    with open_reader(options.reader) as source:
        found = read_observations(source, _asked(query, options), options)
        observations = to_pandas(found.table, OBSERVATIONS)
        frame = summary.make(observations)
        if limit is not None and len(frame) > limit:
            warn_user(
                f"Only the newest {limit} of {len(frame)} {summary.rows} are in the frame. Raise limit."
            )
            frame, found.is_truncated = frame.tail(limit).reset_index(drop=True), True
        if options.scores:
            frame = with_scores(frame, _scores_of(source, query, observations), summary.subject)
    return _finish(frame, summary.schema, options, found)


def _finish(frame: pd.DataFrame, schema: Schema, options: Options, found: Reading) -> Frame:
    """Return a computed frame as what was asked for."""
    made: Any = frame
    if options.as_ != "pandas":
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        made = as_kind(table, schema, options.as_, more=True)
    return _with_failures(_marked(made, found), options, found)


def _marked(frame: Frame, found: Reading) -> Frame:
    if isinstance(frame, pd.DataFrame):
        frame.attrs["is_truncated"] = found.is_truncated
    return frame


def _with_failures(frame: Frame, options: Options, found: Reading) -> Frame:
    return frame if options.strict else (frame, found.failures)


def _scores_of(source: TraceReader, query: ObservationQuery, observations: pd.DataFrame) -> pd.DataFrame:
    wants_all = query.session_id is None and query.trace_id is None
    return _read_scores(
        source, query, None if wants_all else sorted(observations["trace_id"].dropna().unique())
    )


def _read_scores(source: TraceReader, query: ObservationQuery, trace_ids: list[str] | None) -> pd.DataFrame:
    rows: list[Any] = []
    if trace_ids is None or query.session_id is not None:
        rows += source.list_scores(session_id=query.session_id)
    if trace_ids is not None:
        rows += source.list_scores(trace_ids=trace_ids)
    return build_frame(SCORES, rows).sort_values("timestamp", kind="stable", ignore_index=True)


def _trace_ids(source: TraceReader, query: ObservationQuery) -> list[str]:
    return sorted({row["traceId"] for row in source.list_observations(query)})

"""The frames that a notebook asks for: read from the server of this process, one row per named thing.

Owns the public functions and what they have in common; reading, building and summing up are elsewhere.
Invariant: nothing is left out silently; `frame.attrs["is_truncated"]` says whether `limit` cut rows off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import pandas as pd
import pyarrow as pa

from research_kit.errors import BackendError
from research_kit.traces.counting import count_once
from research_kit.traces.defaults import bound_session, open_reader
from research_kit.traces.gathering import (
    ALL_SESSIONS,
    Frame,
    Moment,
    Summary,
    gather_observations,
    gather_scores,
    gather_summary,
    make_query,
)
from research_kit.traces.options import Options, ReadOptions
from research_kit.traces.query import ObservationQuery, check_limit
from research_kit.traces.reader import TraceReader
from research_kit.traces.rollup import (
    MESSAGE_NAME,
    roll_up_cells,
    roll_up_messages,
    roll_up_sessions,
    roll_up_traces,
)
from research_kit.traces.schema import CELLS, MESSAGES, SESSIONS, TOOL_CALLS, TRACES
from research_kit.traces.slices import iter_page_tables

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

_POLL_S = 0.25
# All that sums over a session need; metadata alone is often more than all of these.
_SESSION_GROUPS = ("core", "basic", "usage")


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
    query = make_query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return gather_observations(query, Options.of(options), limit)


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
    query = make_query(session_id, trace_id=trace_id, start_time=start_time, end_time=end_time)
    return gather_observations(replace(query, type="GENERATION"), Options.of(options), limit)


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

    query = make_query(session_id, start_time=start_time, end_time=end_time)
    summary = Summary(
        make=choose, schema=TOOL_CALLS, rows="tool calls", subject="observation", io_of={"type": "TOOL"}
    )
    return gather_summary(query, Options.of(options), limit, summary)


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
    query = make_query(session_id, start_time=start_time, end_time=end_time)
    summary = Summary(make=roll_up_traces, schema=TRACES, rows="traces", subject="trace")
    return gather_summary(query, Options.of(options), limit, summary)


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
    query = make_query(ALL_SESSIONS, start_time=start_time, end_time=end_time)
    summary = Summary(make=roll_up_sessions, schema=SESSIONS, rows="sessions", subject="session")
    return gather_summary(replace(query, field_groups=_SESSION_GROUPS), Options.of(options), limit, summary)


def messages_df(
    session_id: str | None = None,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return the conversation of a session: one row per chat message, in order, with answer and cost.

    A chat message is a trace whose root observation is named ``chat``. The arguments and errors are those of
    `traces_df`.
    """
    query = make_query(session_id, start_time=start_time, end_time=end_time)
    summary = Summary(
        make=roll_up_messages,
        schema=MESSAGES,
        rows="messages",
        subject="trace",
        io_of={"name": MESSAGE_NAME},
    )
    return gather_summary(query, Options.of(options), limit, summary)


def cells_df(
    session_id: str | None = None,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    limit: int | None = None,
    **options: Unpack[ReadOptions],
) -> Frame:
    """Return one row per execution of a notebook cell in which something was observed, with its cost.

    What a cell's threads did counts in; chat messages are rows of `messages_df` instead. The arguments and
    errors are those of `traces_df`.
    """
    query = make_query(session_id, start_time=start_time, end_time=end_time)
    summary = Summary(make=roll_up_cells, schema=CELLS, rows="cells", subject="trace")
    return gather_summary(query, Options.of(options), limit, summary)


def scores_df(session_id: str | None = None, **options: Unpack[ReadOptions]) -> Frame:
    """Return one row per score of a session, its traces and their observations, ordered by ``timestamp``.

    Scores are always read from the server: they are few, and given to old traces as well.

    Args:
        session_id: The session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        **options: `ReadOptions`, as in `observations_df`.

    Raises:
        ConfigError: When no session is bound, or the session does not exist.
        BackendError: When the server cannot be read.
    """
    query = replace(make_query(session_id), includes_io=False, field_groups=("core",))
    return gather_scores(query, Options.of(options))


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
    query = make_query(session_id, start_time=start_time, end_time=end_time)
    with open_reader(reader) as source:
        allowance = source.new_allowance(is_bounded=False)
        pages = source.list_observation_pages(replace(query, includes_io=includes_io), allowance=allowance)
        yield from iter_page_tables(pages, rows_per_table)


def wait_for(
    session_id: str | None,
    observation_count: int,
    *,
    timeout_s: float = 15.0,
    reader: TraceReader | None = None,
) -> None:
    """Wait until at least so many observations of a session can be read.

    A server shows new observations only some time after it has accepted them.

    Args:
        session_id: The session; None means the session of this kernel.
        observation_count: How many observations to wait for.
        timeout_s: How long to wait at most.
        reader: Where to read from; None means where the traces of this process go.

    Raises:
        BackendError: When the server cannot be read, or fewer observations came in time.
        ConfigError: When ``observation_count`` is not a whole number from 1 on, or no session is given and
            none is bound.
    """
    check_limit(observation_count)
    session_id = bound_session() if session_id is None else session_id
    query = ObservationQuery(session_id=session_id, includes_io=False, field_groups=("core",))
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

"""What the functions of `reads` have in common: a question, the rows, and the frame that is made of them.

Owns the order of these steps and where a frame says that rows are missing; the public functions are in
`reads`. Invariant: a frame that lacks rows says so in ``attrs`` or, as Arrow, in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from research_kit._notices import warn_user
from research_kit.errors import BackendError
from research_kit.traces.defaults import bound_session, is_bound, open_reader
from research_kit.traces.frames import build_frame
from research_kit.traces.observation_read import Reading, check_session, read_observations
from research_kit.traces.options import Options
from research_kit.traces.placing import with_values_of
from research_kit.traces.query import ObservationQuery, check_limit, to_utc
from research_kit.traces.reader import TraceReader
from research_kit.traces.schema import OBSERVATIONS, SCORES, Schema
from research_kit.traces.scoring import with_scores
from research_kit.traces.tables import as_kind, to_pandas

__all__ = [
    "ALL_SESSIONS",
    "Frame",
    "Moment",
    "Summary",
    "gather_observations",
    "gather_scores",
    "gather_summary",
    "make_query",
]

ALL_SESSIONS = "*"
Frame = Any
"""A pandas DataFrame, unless ``as_`` or ``strict`` ask for something else."""
Moment = datetime | str | None

_IO_COLUMNS = ("input", "output", "metadata")
_IO_GROUPS = ("core", "metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a frame is made of observations.

    Attributes:
        make: Makes it.
        schema: Its columns.
        rows: The word for its rows, in messages.
        subject: What a row is to scores.
        io_of: Which observations it needs inputs and outputs of, as columns and values; empty means of none.
            All others are read without, which saves most of the bytes.
    """

    make: Callable[[pd.DataFrame], pd.DataFrame]
    schema: Schema
    rows: str
    subject: str
    io_of: Mapping[str, Any] = field(default_factory=dict)


def make_query(
    session_id: str | None,
    *,
    trace_id: str | None = None,
    start_time: Moment = None,
    end_time: Moment = None,
) -> ObservationQuery:
    """Return the question of a call; without session and trace it is about this kernel's session.

    Raises:
        ConfigError: When no session is bound, or a time cannot be used.
    """
    if session_id is None and trace_id is None:
        session_id = bound_session()
    return ObservationQuery(
        session_id=None if session_id == ALL_SESSIONS else session_id,
        trace_id=trace_id,
        start_time=to_utc(start_time, name="start_time"),
        end_time=to_utc(end_time, name="end_time"),
    )


def gather_observations(query: ObservationQuery, options: Options, limit: int | None) -> Frame:
    """Return the observations of ``query`` as the frame that ``options`` ask for.

    Raises:
        BackendError: When the server cannot be read.
        ConfigError: When there is no such session, or ``limit`` cannot be used.
    """
    asked = replace(query, includes_io=options.includes_io, has_full_metadata=options.full_metadata)
    with open_reader(options.reader) as source:
        found = read_observations(source, asked, options, limit=limit)
        if not options.scores:
            frame = as_kind(found.table, OBSERVATIONS, options.as_)
            return _with_failures(_marked(frame, found), options, found)
        frame = to_pandas(found.table, OBSERVATIONS)
        frame = _scored(source, query, frame, (frame, "observation"), options, found)
    return _finish(frame, OBSERVATIONS, options, found)


def gather_summary(query: ObservationQuery, options: Options, limit: int | None, summary: Summary) -> Frame:
    """Return what ``summary`` makes of the observations of ``query``; the errors are the same."""
    check_limit(limit)
    with open_reader(options.reader) as source:
        found = _read(source, query, options, summary.io_of)
        observations = to_pandas(found.table, OBSERVATIONS)
        frame = summary.make(observations)
        if limit is not None and len(frame) > limit:
            warn_user(
                f"Only the newest {limit} of {len(frame)} {summary.rows} are in the frame. Raise limit."
            )
            frame, found.is_truncated = frame.tail(limit).reset_index(drop=True), True
        if options.scores:
            frame = _scored(source, query, observations, (frame, summary.subject), options, found)
    return _finish(frame, summary.schema, options, found)


def gather_scores(query: ObservationQuery, options: Options) -> Frame:
    """Return the scores of a session and of what is in it, or of the project; the errors are the same."""
    found = Reading(pa.table({}))
    with open_reader(options.reader) as source:
        try:
            trace_ids = None if query.session_id is None else _trace_ids(source, query)
            frame = _read_scores(source, query, trace_ids)
        except BackendError as error:
            frame = _without_scores(error, options, found)
        else:
            if frame.empty and not trace_ids and query.session_id and not is_bound(query.session_id):
                check_session(source, query.session_id)
    return _finish(frame, SCORES, options, found)


def _read(
    source: TraceReader, query: ObservationQuery, options: Options, io_of: Mapping[str, Any]
) -> Reading:
    """Read observations without inputs and outputs, and then those of the few that they are needed of."""
    asked = replace(query, includes_io=False, has_full_metadata=options.full_metadata)
    found = read_observations(source, asked, options)
    if not io_of or not options.includes_io or not _has_any(found.table, io_of):
        return found
    also = replace(query, includes_io=True, field_groups=_IO_GROUPS, **io_of)
    more = read_observations(source, also, options)
    found.table = with_values_of(found.table, more.table, _IO_COLUMNS)
    found.failures += more.failures
    return found


def _has_any(table: pa.Table, values: Mapping[str, Any]) -> bool:
    return any(pc.any(pc.equal(table[name], value)).as_py() for name, value in values.items())


def _finish(frame: pd.DataFrame, schema: Schema, options: Options, found: Reading) -> Frame:
    """Return a computed frame as what was asked for."""
    made: Any = frame
    if options.as_ != "pandas":
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        made = as_kind(table, schema, options.as_, more=True)
    return _with_failures(_marked(made, found), options, found)


def _marked(frame: Frame, found: Reading) -> Frame:
    is_truncated = found.is_truncated or bool(found.failures)
    if isinstance(frame, pd.DataFrame):
        frame.attrs["is_truncated"] = is_truncated
    elif isinstance(frame, pa.Table):
        return frame.replace_schema_metadata({"is_truncated": str(is_truncated).lower()})
    return frame


def _with_failures(frame: Frame, options: Options, found: Reading) -> Frame:
    return frame if options.strict else (frame, found.failures)


def _scored(
    source: TraceReader,
    query: ObservationQuery,
    observations: pd.DataFrame,
    scored: tuple[pd.DataFrame, str],
    options: Options,
    found: Reading,
) -> pd.DataFrame:
    """Return the frame of ``scored`` with the scores of what a row is."""
    wants_all = query.session_id is None and query.trace_id is None
    trace_ids = None if wants_all else sorted(observations["trace_id"].dropna().unique())
    try:
        scores = _read_scores(source, query, trace_ids)
    except BackendError as error:
        scores = _without_scores(error, options, found)
    return with_scores(scored[0], scores, scored[1])


def _without_scores(error: BackendError, options: Options, found: Reading) -> pd.DataFrame:
    """Raise, or note the failure and return no scores."""
    if options.strict:
        raise error
    found.failures.append(error)
    warn_user("The scores could not be read and are missing; see the errors.")
    return build_frame(SCORES, [])


def _read_scores(source: TraceReader, query: ObservationQuery, trace_ids: list[str] | None) -> pd.DataFrame:
    rows: list[Any] = []
    if trace_ids is None or query.session_id is not None:
        rows += source.list_scores(session_id=query.session_id)
    if trace_ids is not None:
        rows += source.list_scores(trace_ids=trace_ids)
    return build_frame(SCORES, rows).sort_values("timestamp", kind="stable", ignore_index=True)


def _trace_ids(source: TraceReader, query: ObservationQuery) -> list[str]:
    return sorted({row["traceId"] for row in source.list_observations(query)})

"""What the pages show, read from the database.

Owns the queries of the pages; makes no HTML, and adds nothing up (`page_sums` does). Invariant: a page never
holds more than `MAX_OBSERVATIONS` observations in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from research_kit.counting import Counted, Sums
from research_kit.store.page_sums import SessionSummary, add_up, count_rows, summarise
from research_kit.store.session_filter import SessionFilter

__all__ = [
    "MAX_OBSERVATIONS",
    "Counting",
    "Score",
    "SessionPage",
    "ShownObservation",
    "ShownTrace",
    "find_trace",
    "list_scores",
    "list_sessions",
    "list_traces_of_session",
    "tree_order",
]

MAX_OBSERVATIONS = 5000
_EVERY_SESSION = SessionFilter()
PAGE_SIZE = 50

_COLUMNS = """
    trace_id, span_id, parent_id, is_root, type, name, level, status_message, trace_name, model, start_ms,
    end_ms, completion_start_ms, input_usage, output_usage, total_usage, total_cost, usage_details,
    model_parameters, tags, input, output, metadata, session_id, user_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownObservation:
    """One observation, as far as pages show it."""

    trace_id: str
    span_id: str
    parent_id: str | None
    is_root: bool
    type: str
    name: str
    level: str
    status_message: str
    trace_name: str | None
    model: str
    start_ms: int
    end_ms: int
    completion_start_ms: int | None
    input_usage: int
    output_usage: int
    total_usage: int
    total_cost: float | None
    usage_details: str
    model_parameters: str
    tags: str
    input: str | None
    output: str | None
    metadata: str
    session_id: str
    user_id: str

    @property
    def tag_list(self) -> list[str]:
        """Its tags."""
        return list(map(str, json.loads(self.tags)))

    @property
    def is_unpriced(self) -> bool:
        """Whether it used tokens that nobody put a price on; what that means for sums, counting decides."""
        return self.total_usage > 0 and self.total_cost is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrace:
    """The observations of one trace, by start.

    Attributes:
        trace_id: Its id.
        observations: All of them.
        session_id: Whose observations count; None for all. A tool server's own may have no session.
    """

    trace_id: str
    observations: tuple[ShownObservation, ...]
    session_id: str | None = None

    @property
    def root(self) -> ShownObservation:
        """The first root, or the first observation of a trace whose root is missing."""
        return next((found for found in self.observations if found.is_root), self.observations[0])

    @property
    def name(self) -> str:
        """The name that the trace is known under."""
        return self.root.trace_name or self.root.name or "(no name)"

    @property
    def start_ms(self) -> int:
        """When its first observation began."""
        return min(found.start_ms for found in self.observations)

    @property
    def latency_s(self) -> float:
        """From its first begin to its last end."""
        return (max(found.end_ms for found in self.observations) - self.start_ms) / 1000

    def counted(self) -> Counting:
        """Count its observations; on the page of a session those that belong to the session."""
        shown = [found for found in self.observations if self.session_id in (None, found.session_id)]
        return Counting(tuple(shown), count_rows(shown))


class Counting(NamedTuple):
    """Observations, and what each of them adds to the sums."""

    observations: tuple[ShownObservation, ...]
    counted: list[Counted]

    @property
    def sums(self) -> Sums:
        """The sums over all of them."""
        return add_up(self.counted)

    def steps(self) -> list[ShownObservation]:
        """Return the tool calls and retrievals; one MCP call is one, for its caller and for its server."""
        pairs = zip(self.observations, self.counted, strict=True)
        return [found for found, own in pairs if own.is_tool_call or found.type == "RETRIEVER"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """A part of the list of sessions.

    Attributes:
        sessions: The lines, the latest activity first.
        session_count: How many there are on all pages.
        offset: How many come before.
        size: How many a page holds.
    """

    sessions: tuple[SessionSummary, ...]
    session_count: int
    offset: int
    size: int = PAGE_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score, as far as pages show it."""

    name: str
    value: str
    comment: str | None
    trace_id: str | None
    observation_id: str | None


def list_sessions(
    connection: sqlite3.Connection, wanted: SessionFilter = _EVERY_SESSION, *, offset: int = 0
) -> SessionPage:
    """Return the sessions with the latest activity first."""
    condition, values = wanted.sql()
    # The index alone tells the order; only the sessions of this page are summed up.
    listed = connection.execute(
        f"""
        SELECT session_id, count(*) OVER () FROM observations
        WHERE session_id <> '' AND {condition}
        GROUP BY session_id ORDER BY max(start_ms) DESC LIMIT ? OFFSET ?
        """,
        (*values, PAGE_SIZE, offset),
    ).fetchall()
    return SessionPage(
        sessions=tuple(summarise(connection, session_id) for session_id, _ in listed),
        session_count=listed[0][1] if listed else 0,
        offset=offset,
    )


def list_traces_of_session(connection: sqlite3.Connection, session_id: str) -> list[ShownTrace]:
    """Return the traces of a session in their order, with all their observations.

    Observations without a session, such as those of a tool server, come along with their trace.
    """
    return _traces(
        connection,
        "trace_id IN (SELECT trace_id FROM observations WHERE session_id = ?)",
        (session_id,),
        session_id=session_id,
    )


def find_trace(connection: sqlite3.Connection, trace_id: str) -> ShownTrace | None:
    """Return the trace with this id; None when there is none."""
    return next(iter(_traces(connection, "trace_id = ?", (trace_id,))), None)


def list_scores(connection: sqlite3.Connection, *, subject_ids: Sequence[str]) -> list[Score]:
    """Return the scores of traces and sessions, oldest first."""
    rows = connection.execute(
        "SELECT name, data_type, numeric_value, text_value, comment, subject, subject_id, observation_id"
        " FROM scores "
        "WHERE subject_id IN (SELECT value FROM json_each(?)) ORDER BY timestamp_ms, score_id",
        (json.dumps(list(subject_ids)),),
    )
    return [
        Score(
            name=name,
            value=_score_text(data_type, number, text),
            comment=comment,
            trace_id=None if subject == "session" else subject_id,
            observation_id=observation_id,
        )
        for name, data_type, number, text, comment, subject, subject_id, observation_id in rows
    ]


def tree_order(trace: ShownTrace) -> Iterator[tuple[int, ShownObservation]]:
    """Yield depth and observation, parents before children; one whose parent is unknown is a root."""
    known = {found.span_id for found in trace.observations}
    children: dict[str | None, list[ShownObservation]] = {}
    for found in trace.observations:
        parent = found.parent_id if found.parent_id in known and found.parent_id != found.span_id else None
        children.setdefault(parent, []).append(found)
    waiting = [(0, found) for found in reversed(children.pop(None, []))]
    while waiting or children:
        if not waiting:
            # Only a circle of parents is left over; show it from its first member on.
            _, circle = children.popitem()
            waiting = [(0, found) for found in reversed(circle)]
        depth, found = waiting.pop()
        yield depth, found
        waiting.extend((depth + 1, child) for child in reversed(children.pop(found.span_id, [])))


def _traces(
    connection: sqlite3.Connection, where: str, values: tuple[Any, ...], *, session_id: str | None = None
) -> list[ShownTrace]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM observations WHERE {where} ORDER BY start_ms, end_ms DESC, span_id LIMIT ?",
        (*values, MAX_OBSERVATIONS),
    )
    names = ShownObservation.__dataclass_fields__
    grouped: dict[str, list[ShownObservation]] = {}
    for row in rows:
        found = ShownObservation(**dict(zip(names, row, strict=True)))
        grouped.setdefault(found.trace_id, []).append(found)
    return [
        ShownTrace(trace_id=trace_id, observations=tuple(found), session_id=session_id)
        for trace_id, found in grouped.items()
    ]


def _score_text(data_type: str, number: float | None, text: str | None) -> str:
    if data_type == "BOOLEAN":
        return "true" if number else "false"
    return f"{number:g}" if number is not None else text or ""

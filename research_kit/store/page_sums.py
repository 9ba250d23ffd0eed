"""The sums that pages show: over a trace, and over a session of any length.

Owns the way from rows of the database to `research_kit.counting`, which has the rules. Invariant: the sums
over a session are over all of its observations, however many of them a page shows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from research_kit.counting import Counted, Facts, Sums, count, parent_places

__all__ = ["SessionSummary", "add_up", "count_rows", "summarise"]


class _Row(Protocol):
    """What counting needs of an observation."""

    @property
    def trace_id(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def total_cost(self) -> float | None: ...
    @property
    def usage_details(self) -> str: ...
    @property
    def input_usage(self) -> int: ...
    @property
    def output_usage(self) -> int: ...
    @property
    def total_usage(self) -> int: ...


class _SessionRow(NamedTuple):
    """One observation of a session, as far as its summary needs it."""

    trace_id: str
    span_id: str
    parent_id: str | None
    type: str
    name: str
    level: str
    total_cost: float | None
    usage_details: str
    input_usage: int
    output_usage: int
    total_usage: int
    start_ms: int
    end_ms: int
    user_id: str
    model: str
    tags: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """What a session is, in one line.

    Attributes:
        sums: Tokens, cost, calls and errors.
        user_id: Its first user; empty when none is known.
        first_input: What its first root was given.
        tags: The tags of its first root.
        all_tags: The tags of all its observations, sorted.
        models: Its models, sorted.
    """

    session_id: str
    user_id: str
    trace_count: int
    start_ms: int
    end_ms: int
    sums: Sums
    first_input: str | None
    tags: tuple[str, ...]
    all_tags: tuple[str, ...]
    models: tuple[str, ...]


def count_rows(rows: Sequence[_Row]) -> list[Counted]:
    """Return what each observation adds to the sums over ``rows``."""
    parents = parent_places(
        [(row.trace_id, row.span_id) for row in rows], [(row.trace_id, row.parent_id) for row in rows]
    )
    return count(list(map(_facts, rows)), parents)


def add_up(counted: Iterable[Counted]) -> Sums:
    """Return the sums."""
    sums = Sums()
    for own in counted:
        sums.add(
            Sums(
                cost_usd=own.cost_usd,
                input_tokens=own.input_tokens,
                output_tokens=own.output_tokens,
                total_tokens=own.total_tokens,
                call_count=own.is_call,
                unpriced_count=own.is_unpriced,
                tool_call_count=own.is_tool_call,
                error_count=own.is_error,
            )
        )
    return sums


def summarise(connection: sqlite3.Connection, session_id: str) -> SessionSummary:
    """Return the summary of a session that has observations."""
    rows = [
        _SessionRow(*row)
        for row in connection.execute(
            f"SELECT {', '.join(_SessionRow._fields)} FROM observations WHERE session_id = ?"
            " ORDER BY start_ms, end_ms DESC, span_id",
            (session_id,),
        )
    ]
    first = connection.execute(
        "SELECT input, tags FROM observations WHERE session_id = ? AND is_root ORDER BY start_ms LIMIT 1",
        (session_id,),
    ).fetchone()
    first_input, tags = first or (None, "[]")
    return SessionSummary(
        session_id=session_id,
        user_id=next((row.user_id for row in rows if row.user_id), ""),
        trace_count=len({row.trace_id for row in rows}),
        start_ms=rows[0].start_ms,
        end_ms=max(row.end_ms for row in rows),
        sums=add_up(count_rows(rows)),
        first_input=first_input,
        tags=_tags([tags]),
        all_tags=_tags({row.tags for row in rows}),
        models=tuple(sorted({row.model for row in rows} - {""})),
    )


def _facts(row: _Row) -> Facts:
    is_known = row.usage_details != "{}"
    return Facts(
        row.type,
        row.name,
        row.total_cost,
        row.input_usage if is_known else None,
        row.output_usage if is_known else None,
        row.total_usage if is_known else None,
        row.level == "ERROR",
    )


def _tags(lists: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({str(tag) for tags in lists for tag in json.loads(tags)}))

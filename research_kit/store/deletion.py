"""``DELETE /api/public/traces``: traces leave with their scores."""

from __future__ import annotations

import json
from collections.abc import Sequence

from research_kit.store.answers import invalid_data, issue
from research_kit.store.database import Database

__all__ = ["delete_traces", "parse_trace_ids"]


def parse_trace_ids(content: object) -> list[str]:
    """Read the body of a request that deletes several traces.

    Raises:
        ApiError: 400 when it names no trace.
    """
    trace_ids = content.get("traceIds") if isinstance(content, dict) else None
    if not isinstance(trace_ids, list) or not all(isinstance(trace_id, str) for trace_id in trace_ids):
        raise invalid_data(
            issue(["traceIds"], "Invalid input: expected array of strings", code="invalid_type")
        )
    if not trace_ids:
        raise invalid_data(issue(["traceIds"], "At least 1 traceId is required.", code="too_small"))
    return trace_ids


def delete_traces(database: Database, trace_ids: Sequence[str]) -> None:
    """Delete traces and their scores; unknown ids are no error."""
    wanted = json.dumps(list(trace_ids))
    with database.writing() as connection:
        connection.execute(
            "DELETE FROM observations WHERE trace_id IN (SELECT value FROM json_each(?))", (wanted,)
        )
        connection.execute(
            "DELETE FROM scores WHERE subject IN ('trace', 'observation') "
            "AND subject_id IN (SELECT value FROM json_each(?))",
            (wanted,),
        )

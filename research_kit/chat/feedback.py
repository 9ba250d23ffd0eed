"""Thumbs on answers, as scores on their traces.

Owns the name and the id of these scores. Invariant: an answer has at most one; a second thumb replaces the
first.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

from research_kit import session
from research_kit.errors import ResearchKitError

__all__ = ["FEEDBACK_NAME", "Feedback", "give_feedback"]

FEEDBACK_NAME = "helpful"
_TIMEOUT_S = 10.0


class Feedback(NamedTuple):
    """A thumb: 1 for up, 0 for down, and a comment that may be empty."""

    value: int
    comment: str


def give_feedback(trace_id: str, value: int | None, comment: str) -> None:
    """Score the answer of a trace: 1 or 0, with a comment; None takes the score back.

    Raises:
        ResearchKitError: When the server does not take it back now.
    """
    score_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"research-kit/{FEEDBACK_NAME}/{trace_id}"))
    if value is None:
        _delete_score(score_id)
        return
    session.score(FEEDBACK_NAME, bool(value), trace_id=trace_id, comment=comment or None, score_id=score_id)


def _delete_score(score_id: str) -> None:
    import httpx

    from research_kit.wire import BoundedClient, Bounds

    session.flush()
    backend = session.resolve_backend()
    try:
        with backend.open_client(timeout_s=_TIMEOUT_S) as client:
            answer = BoundedClient(client).request(
                "DELETE",
                f"{backend.base_url}/api/public/scores/{score_id}",
                auth=(backend.public_key, backend.secret_key),
                bounds=Bounds(total_s=2 * _TIMEOUT_S),
            )
    except httpx.HTTPError as error:
        raise ResearchKitError(
            f"The score could not be taken back: {error}. Try again when the server can be reached."
        ) from error
    if answer.status_code not in (200, 202, 204, 404):
        raise ResearchKitError(
            f"The score could not be taken back: {backend.base_url} answered {answer.status_code}. "
            "Delete it on the page of its trace."
        )

"""The messages of an earlier session, read back from the server.

Owns the step from frames to messages. Invariant: it reads through the API only, so that any kernel can go on
with a session.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from research_kit.chat.events import Usage, add_usage
from research_kit.chat.feedback import FEEDBACK_NAME, Feedback

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Past", "PastMessage", "PastTool", "SessionSummary", "list_sessions", "read_past"]

_RECENT = timedelta(days=30)
_MOST_SESSIONS = 30
_TITLE_CHARACTERS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTool:
    """A tool call of a message that is read back.

    Attributes:
        call_id: Its observation.
        name: Name of the tool.
        arguments: What it was called with, as the server has it.
        result: What it answered, or why it failed, as text.
        is_error: Whether it failed.
        latency_s: How long it took in seconds.
    """

    call_id: str
    name: str
    arguments: Any
    result: str
    is_error: bool
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PastMessage:
    """A message of a session that is read back.

    Attributes:
        message_number: Its number in the conversation.
        question: What the user wrote.
        answer: What the assistant answered; empty when it failed.
        error: What went wrong; None when nothing did.
        usage: Tokens and cost.
        latency_s: Seconds from sending to the whole answer.
        trace_id: Its trace.
        tools: The tool calls, in the order of their start.
        feedback: The thumb that it was given; None when it was given none.
    """

    message_number: int
    question: str
    answer: str
    error: str | None
    usage: Usage
    latency_s: float
    trace_id: str
    tools: tuple[PastTool, ...] = ()
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """A session that one can go on with: its first question, and the sums of its messages."""

    session_id: str
    title: str
    start_time: datetime
    message_count: int
    usage: Usage


class Past(NamedTuple):
    """An earlier session: its messages, and the usage of all of it, cells included."""

    messages: list[PastMessage]
    usage: Usage


def read_past(session_id: str) -> Past:
    """Read the conversation of a session.

    Raises:
        BackendError: When the server cannot be read.
    """
    from research_kit.traces import messages_df, tool_calls_df, traces_df

    # Numbered anew: each panel of a kernel has counted from 1 in the same session.
    rows = messages_df(session_id).to_dict("records")
    tools: dict[str, list[PastTool]] = {}
    for row in tool_calls_df(session_id).to_dict("records"):
        tools.setdefault(row["trace_id"], []).append(_tool(row))
    thumbs = _thumbs(session_id) if rows else {}
    messages = [
        _message(row, number, tools.get(row["trace_id"], ()), thumbs.get(row["trace_id"]))
        for number, row in enumerate(rows, 1)
    ]
    traces = traces_df(session_id)
    costs = traces["cost_usd"].dropna()
    usage = Usage(
        input_tokens=int(traces["input_tokens"].sum()),
        output_tokens=int(traces["output_tokens"].sum()),
        cost_usd=float(costs.sum()) if len(costs) else None,
        unpriced_count=int(traces["unpriced_count"].sum()),
    )
    return Past(messages, usage)


def list_sessions() -> list[SessionSummary]:
    """Return the sessions of the last 30 days that have messages, newest first.

    Raises:
        BackendError: When the server cannot be read.
    """
    from research_kit.traces import ALL_SESSIONS, messages_df

    frame = messages_df(ALL_SESSIONS, start_time=datetime.now(UTC) - _RECENT)
    found = [_summary(str(name), rows) for name, rows in frame.groupby("session_id", sort=False)]
    return sorted(found, key=lambda known: known.start_time, reverse=True)[:_MOST_SESSIONS]


def _summary(session_id: str, messages: pd.DataFrame) -> SessionSummary:
    usage, rows = Usage(), messages.to_dict("records")
    for row in rows:
        usage = add_usage(usage, _usage(row))
    question = " ".join((_known(rows[0]["question"]) or "").split())
    return SessionSummary(
        session_id=session_id,
        title=textwrap.shorten(question, _TITLE_CHARACTERS, placeholder=" …"),
        start_time=rows[0]["start_time"].to_pydatetime(),
        message_count=len(rows),
        usage=usage,
    )


def _thumbs(session_id: str) -> dict[str, Feedback]:
    from research_kit.traces import scores_df

    frame = scores_df(session_id)
    return {
        row["trace_id"]: Feedback(int(row["value"]), _known(row["comment"]) or "")
        for row in frame[frame["name"] == FEEDBACK_NAME].to_dict("records")
        if _known(row["trace_id"]) is not None and _known(row["value"]) is not None
    }


def _tool(row: Mapping[Any, Any]) -> PastTool:
    result = row["error"] if row["is_error"] else row["output"]
    return PastTool(
        call_id=row["observation_id"],
        name=row["name"],
        arguments=row["input"],
        result=result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str),
        is_error=bool(row["is_error"]),
        latency_s=float(_known(row["latency_s"]) or 0.0),
    )


def _message(
    row: Mapping[Any, Any], number: int, tools: Iterable[PastTool], feedback: Feedback | None
) -> PastMessage:
    return PastMessage(
        message_number=number,
        question=_known(row["question"]) or "",
        answer=_known(row["answer"]) or "",
        error=_known(row["error"]),
        usage=_usage(row),
        latency_s=float(_known(row["latency_s"]) or 0.0),
        trace_id=str(row["trace_id"]),
        tools=tuple(tools),
        feedback=feedback,
    )


def _usage(row: Mapping[Any, Any]) -> Usage:
    return Usage(
        input_tokens=int(_known(row["input_tokens"]) or 0),
        output_tokens=int(_known(row["output_tokens"]) or 0),
        cost_usd=_known(row["cost_usd"]),
        unpriced_count=int(_known(row["unpriced_count"]) or 0),
    )


def _known(value: Any) -> Any:
    """Return ``value``, or None for what pandas counts as missing."""
    import pandas as pd

    return None if pd.isna(value) else value

"""The messages of an earlier session, read back from the server.

Owns the step from frames to messages. Invariant: it reads through the API only, so that any kernel can go on
with a session.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from research_kit.chat.events import Usage

__all__ = ["Past", "PastMessage", "PastTool", "SessionSummary", "list_sessions", "read_past"]

_RECENT = timedelta(days=30)
_MOST_SESSIONS = 30


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
    """

    message_number: int
    question: str
    answer: str
    error: str | None
    usage: Usage
    latency_s: float
    trace_id: str
    tools: tuple[PastTool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """A session that one can go on with."""

    session_id: str
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
    messages = [_message(row, number, tools.get(row["trace_id"], ())) for number, row in enumerate(rows, 1)]
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
    from research_kit.traces import sessions_df

    frame = sessions_df(start_time=datetime.now(UTC) - _RECENT)
    frame = frame[frame["message_count"] > 0].tail(_MOST_SESSIONS)
    return [
        SessionSummary(
            session_id=row["session_id"],
            start_time=row["start_time"].to_pydatetime(),
            message_count=int(row["message_count"]),
            usage=_usage(row),
        )
        for row in reversed(frame.to_dict("records"))
    ]


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


def _message(row: Mapping[Any, Any], number: int, tools: Iterable[PastTool]) -> PastMessage:
    return PastMessage(
        message_number=number,
        question=_known(row["question"]) or "",
        answer=_known(row["answer"]) or "",
        error=_known(row["error"]),
        usage=_usage(row),
        latency_s=float(_known(row["latency_s"]) or 0.0),
        trace_id=str(row["trace_id"]),
        tools=tuple(tools),
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

"""Observations summed up to traces, sessions and chat messages.

Owns what the rows of those frames are; reads nothing from a server. Invariant: the input frame is not
changed, and every sum follows the rules of `counting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from research_kit.counting import tool_name
from research_kit.traces.counting import count_once
from research_kit.traces.frames import build_frame
from research_kit.traces.schema import CELLS, MESSAGES, SESSIONS, TRACES, Schema
from research_kit.traces.tables import TEXT
from research_kit.traces.wire import as_text, metadata_text

__all__ = ["MESSAGE_NAME", "roll_up_cells", "roll_up_messages", "roll_up_sessions", "roll_up_traces"]

MESSAGE_NAME = "chat"
_CELL_TEXTS = ("notebook", "source_hash", "outcome")
_SUMS = ("input_tokens", "output_tokens", "total_tokens", "cost_usd")


def roll_up_traces(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trace, ordered by start.

    Args:
        frame: Observations of complete traces, ordered by start.
    """
    return _build(TRACES, _trace_columns(frame))


def roll_up_sessions(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per session, ordered by start; observations without a session are left out.

    Args:
        frame: Observations of complete sessions, ordered by start.
    """
    within = frame[frame["session_id"].notna()]
    groups = within.groupby("session_id", sort=False)
    own = pd.DataFrame(
        {
            "user_id": groups["user_id"].first(),
            "environment": groups["environment"].first(),
            "trace_count": groups["trace_id"].nunique(),
            "message_count": _is_message(within).groupby(within["session_id"], sort=False).sum(),
        }
    )
    return _build(SESSIONS, own.join(_span_of_time(groups)).join(_activity(within, "session_id")))


def roll_up_messages(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per chat message, ordered by start.

    Args:
        frame: Observations of complete traces with their inputs and outputs, ordered by start.
    """
    roots = frame[_is_message(frame)].drop_duplicates("trace_id")
    within = frame[frame["trace_id"].isin(roots["trace_id"])]
    tools = within[count_once(within)["is_tool_call"]]
    tools = tools.assign(name=tools["name"].map(tool_name))
    traces = roots.drop(columns=list(_SUMS)).set_index("trace_id").join(_activity(within, "trace_id"))
    lasting = traces.assign(
        question=traces["input"].map(as_text),
        answer=traces["output"].map(as_text),
        error=traces["status_message"],
        model=_names(within.dropna(subset="model").drop_duplicates(["trace_id", "model"]), "model"),
        tools=_names(tools, "name"),
        time_to_first_token_s=_seconds(
            within.groupby("trace_id")["completion_start_time"].min() - traces["start_time"]
        ),
    )
    return _build(MESSAGES, _numbered(lasting))


def roll_up_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell execution, ordered by start, with what happened in its threads.

    Args:
        frame: Observations of complete traces with their metadata, ordered by start.
    """
    own = pd.DataFrame({name: _metadata(frame, name) for name in ("cell_trace_id", *_CELL_TEXTS)})
    own["cell_trace_id"] = own["cell_trace_id"].fillna(frame["trace_id"])
    is_cell = own["source_hash"].notna().groupby(own["cell_trace_id"]).transform("any").astype("bool")
    within = frame.join(own)[is_cell]
    groups = within.groupby("cell_trace_id", sort=False)
    roots = within[within["is_root"].fillna(False) & (within["trace_id"] == within["cell_trace_id"])]
    times = roots.drop_duplicates("trace_id").set_index("trace_id")
    cells = groups[["session_id", "user_id", "cell_id", "execution_count", *_CELL_TEXTS]].first()
    cells = cells.join(times[["name", "start_time", "end_time"]]).join(_activity(within, "cell_trace_id"))
    # The root may not have arrived yet, and the threads of a cell may outlast it.
    for name, known in _span_of_time(groups).items():
        cells[name] = cells[name].fillna(known)
    cells["latency_s"] = _seconds(cells["end_time"] - cells["start_time"])
    cells["error"] = times["status_message"].reindex(cells.index)
    return _build(CELLS, cells.rename_axis("trace_id"))


def _metadata(frame: pd.DataFrame, key: str) -> pd.Series[str]:
    read = metadata_text(key)
    values = [read({"metadata": metadata}) for metadata in frame["metadata"]]
    return pd.Series(values, index=frame.index, dtype=TEXT)


def _trace_columns(frame: pd.DataFrame) -> pd.DataFrame:
    groups = frame.groupby("trace_id", sort=False)
    firsts = groups[
        ["session_id", "user_id", "trace_name", "cell_id", "execution_count", "environment", "tags"]
    ].first()
    roots = frame[frame["is_root"].fillna(False)].drop_duplicates("trace_id").set_index("trace_id")
    own = firsts.join(_span_of_time(groups)).join(_activity(frame, "trace_id"))
    own["name"] = own["trace_name"].fillna(roots["name"].reindex(own.index))
    own["latency_s"] = _seconds(own["end_time"] - own["start_time"])
    return own


def _span_of_time(groups: Any) -> pd.DataFrame:
    return pd.DataFrame({"start_time": groups["start_time"].min(), "end_time": groups["end_time"].max()})


def _activity(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return counts and sums per value of ``key``."""
    counted = count_once(frame)
    groups = counted.groupby(frame[key], sort=False)
    counts = {
        "observation_count": groups.size(),
        "generation_count": (frame["type"] == "GENERATION").groupby(frame[key], sort=False).sum(),
        "tool_call_count": groups["is_tool_call"].sum(),
        "error_count": groups["is_error"].sum(),
        "unpriced_count": groups["is_unpriced"].sum(),
    }
    return pd.DataFrame(counts).join(groups[list(_SUMS)].sum(min_count=1))


def _is_message(frame: pd.DataFrame) -> pd.Series[bool]:
    return (frame["is_root"] & (frame["name"] == MESSAGE_NAME)).fillna(False).astype("bool")


def _names(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return the texts of ``column`` per trace, in order, as one text."""
    return frame.dropna(subset=column).groupby("trace_id", sort=False)[column].agg(", ".join)


def _numbered(messages: pd.DataFrame) -> pd.DataFrame:
    """Number messages by their order in the session where their client did not number them."""
    order = messages.groupby("session_id", dropna=False, sort=False).cumcount() + 1
    return messages.assign(message_number=messages["message_number"].fillna(order))


def _seconds(duration: pd.Series[pd.Timedelta]) -> pd.Series[float]:
    return duration.dt.total_seconds()


def _build(schema: Schema, columns: pd.DataFrame) -> pd.DataFrame:
    ordered = columns.reset_index().sort_values("start_time", kind="stable")
    names = [column.name for column in schema]
    rows: list[Mapping[str, Any]] = ordered[names].to_dict("records")  # type: ignore[assignment]
    return build_frame(schema, rows)

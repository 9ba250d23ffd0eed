"""The columns of every frame that is read, as data: name, dtype, how a value is read, and what it means.

Owns the tables; builds no frames. Invariant: the documentation is generated from these tables, so a column
that is here is documented, and one that is not here does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from research_kit.traces import wire

__all__ = [
    "CELLS",
    "MESSAGES",
    "OBSERVATIONS",
    "OBSERVATION_SOURCE",
    "SCHEMAS",
    "SCORES",
    "SESSIONS",
    "TOOL_CALLS",
    "TRACES",
    "Column",
    "Dtype",
    "Schema",
    "own",
]

Dtype = Literal["string", "Int64", "float64", "boolean", "datetime64[ns, UTC]", "json"]
Schema = tuple["Column", ...]

_TIME: Dtype = "datetime64[ns, UTC]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a frame.

    Attributes:
        name: Its name; units are part of it.
        dtype: Its pandas dtype, also when there are no rows.
        read: Returns its value from a row; None when missing.
        doc: What it means, in one sentence without the name.
    """

    name: str
    dtype: Dtype
    read: Callable[[Mapping[str, Any]], object]
    doc: str


def own(name: str, dtype: Dtype, doc: str) -> Column:
    """Return a column whose row already uses its name, as the rows that we compute do."""
    return Column(name=name, dtype=dtype, read=wire.plain(name), doc=doc)


def _text(name: str, key: str, doc: str) -> Column:
    return Column(name=name, dtype="string", read=wire.text(key), doc=doc)


def _time(name: str, key: str, doc: str) -> Column:
    return Column(name=name, dtype=_TIME, read=wire.text(key), doc=doc)


def _of(name: str, dtype: Dtype, read: Callable[[Mapping[str, Any]], object], doc: str) -> Column:
    return Column(name=name, dtype=dtype, read=read, doc=doc)


OBSERVATIONS: Schema = (
    _text("observation_id", "id", "Id of the observation."),
    _text("trace_id", "traceId", "Trace that it belongs to."),
    _text("session_id", "sessionId", "Session that it belongs to."),
    _text("user_id", "userId", "User that it belongs to."),
    _text("parent_observation_id", "parentObservationId", "Observation that it happened in."),
    own("parent_name", "string", "Name of that observation; NA when it is not in the frame."),
    _text("type", "type", "Langfuse type: `GENERATION`, `TOOL`, `AGENT`, `CHAIN`, `SPAN`..."),
    _text("name", "name", "Name of the observation."),
    _text(
        "trace_name", "traceName", "Name of the trace; on roots, and elsewhere when the client propagated it."
    ),
    _time("start_time", "startTime", "When it began; the server keeps milliseconds."),
    _time("end_time", "endTime", "When it ended."),
    _time("completion_start_time", "completionStartTime", "When the first token arrived."),
    _of(
        "latency_s",
        "float64",
        wire.plain("latency"),
        "Seconds from start to end; NA when not measurable (0 ms).",
    ),
    _of(
        "time_to_first_token_s",
        "float64",
        wire.plain("timeToFirstToken"),
        "Seconds from start to the first token; NA when not streamed.",
    ),
    _of(
        "tokens_per_second",
        "float64",
        wire.tokens_per_second,
        "Output tokens by seconds from start to end; NA when either is unknown.",
    ),
    _text("model", "model", "Model that the LM call named."),
    _of(
        "input_tokens", "Int64", wire.usage("input", "inputUsage"), "All input tokens, cached ones included."
    ),
    _of(
        "output_tokens",
        "Int64",
        wire.usage("output", "outputUsage"),
        "All output tokens, reasoning included.",
    ),
    _of("cached_tokens", "Int64", wire.cached_tokens, "Input tokens read from the provider's cache."),
    _of("reasoning_tokens", "Int64", wire.reasoning_tokens, "Output tokens that the model reasoned with."),
    _of("total_tokens", "Int64", wire.total_tokens, "All tokens; NA when the client sent no usage."),
    _of(
        "cost_usd", "float64", wire.cost_usd, "Cost in US dollars; NA when unknown, 0 only when it was free."
    ),
    _of("input_cost_usd", "float64", wire.plain("inputCost"), "The part of the cost for input tokens."),
    _of("output_cost_usd", "float64", wire.plain("outputCost"), "The part of the cost for output tokens."),
    _of("cached_cost_usd", "float64", wire.cached_cost_usd, "The part of the cost for cached input tokens."),
    _of(
        "input_usd_per_token",
        "float64",
        wire.number("inputPrice"),
        "What the server's price table asks for an input token.",
    ),
    _of(
        "output_usd_per_token",
        "float64",
        wire.number("outputPrice"),
        "What it asks for an output token.",
    ),
    _of(
        "is_cache_hit",
        "boolean",
        wire.metadata_truth("cache_hit"),
        "Whether DSPy's own cache answered; NA when not told.",
    ),
    _text("level", "level", "`DEBUG`, `DEFAULT`, `WARNING` or `ERROR`."),
    _text("status_message", "statusMessage", "What went wrong, or another remark."),
    _of("is_error", "boolean", wire.is_error, "Whether the level is `ERROR`."),
    _of("error", "string", wire.error, "What went wrong; NA unless the level is `ERROR`."),
    _of("is_root", "boolean", wire.plain("isRootObservation"), "Whether the trace begins with it."),
    own("depth", "Int64", "Steps from the root; NA when an ancestor is not in the frame."),
    own("path", "string", "Names from the root down to it, separated by ` > `; NA like `depth`."),
    _text("environment", "environment", "Langfuse environment."),
    _text("release", "release", "Release of the application."),
    _text("version", "version", "Version of the component."),
    _of("tags", "string", wire.tags, "Tags of the trace, separated by a comma and a space."),
    _text("prompt_name", "promptName", "Langfuse prompt that was used."),
    _of("cell_id", "string", wire.metadata_text("cell_id"), "Notebook cell that it happened in."),
    _of(
        "execution_count",
        "Int64",
        wire.metadata_count("execution_count"),
        "Number in the brackets of that cell.",
    ),
    _of(
        "message_number",
        "Int64",
        wire.metadata_count("message_number"),
        "Chat message that it answers, from 1 on.",
    ),
    _of(
        "input",
        "json",
        wire.plain("input"),
        "Input: parsed when it is a JSON object, list or quoted text.",
    ),
    _of("output", "json", wire.plain("output"), "Output, read like the input."),
    _of("metadata", "json", wire.plain("metadata"), "All metadata, as a dict."),
)

_PLACED = ("parent_name", "depth", "path")
OBSERVATION_SOURCE: Schema = tuple(column for column in OBSERVATIONS if column.name not in _PLACED)
"""The columns that one row of the server is enough for."""

_TOOL_CALL_NAMES = (
    "observation_id",
    "trace_id",
    "session_id",
    "user_id",
    "parent_observation_id",
    "parent_name",
    "name",
    "start_time",
    "end_time",
    "latency_s",
    "is_error",
    "error",
    "depth",
    "path",
    "cell_id",
    "execution_count",
    "message_number",
    "input",
    "output",
    "metadata",
)
TOOL_CALLS: Schema = tuple(column for column in OBSERVATIONS if column.name in _TOOL_CALL_NAMES)

_USAGE: Schema = (
    own("input_tokens", "Int64", "Sum of the input tokens that are known."),
    own("output_tokens", "Int64", "Sum of the output tokens that are known."),
    own("total_tokens", "Int64", "Sum of all tokens that are known."),
    own("cost_usd", "float64", "Sum of the costs that are known; NA when none is."),
    own("unpriced_count", "Int64", "LM calls whose cost is unknown and therefore missing in the sum."),
)

_ACTIVITY: Schema = (
    own("observation_count", "Int64", "Number of observations."),
    own("generation_count", "Int64", "Number of observations of type `GENERATION`."),
    own("tool_call_count", "Int64", "Number of tool calls; the parts that one call is made of count once."),
    own(
        "error_count",
        "Int64",
        "Number of errors, where they arose; passing through parents is not another one.",
    ),
    *_USAGE,
)

TRACES: Schema = (
    own("trace_id", "string", "Id of the trace."),
    own("session_id", "string", "Session that it belongs to."),
    own("user_id", "string", "User that it belongs to."),
    own("name", "string", "Name of the trace: of its root, unless the client named it otherwise."),
    own("start_time", _TIME, "When its first observation began."),
    own("end_time", _TIME, "When its last observation ended."),
    own("latency_s", "float64", "Seconds between the two."),
    own("cell_id", "string", "Notebook cell that it happened in."),
    own("execution_count", "Int64", "Number in the brackets of that cell."),
    own("environment", "string", "Langfuse environment."),
    own("tags", "string", "Tags, separated by a comma and a space."),
    *_ACTIVITY,
)

SESSIONS: Schema = (
    own("session_id", "string", "Id of the session."),
    own("user_id", "string", "User of its first observation that has one."),
    own("environment", "string", "Langfuse environment."),
    own("start_time", _TIME, "When its first observation began."),
    own("end_time", _TIME, "When its last observation ended."),
    own("trace_count", "Int64", "Number of traces."),
    own("message_count", "Int64", "Number of chat messages."),
    *_ACTIVITY,
)

MESSAGES: Schema = (
    own("message_number", "Int64", "Number of the message in its conversation, from 1 on."),
    own("session_id", "string", "Session that it belongs to."),
    own("trace_id", "string", "Trace of the message."),
    own("observation_id", "string", "Root observation of that trace."),
    own("user_id", "string", "User who wrote it."),
    own("start_time", _TIME, "When it was sent."),
    own("end_time", _TIME, "When the answer was complete."),
    own("question", "string", "What the user wrote."),
    own("answer", "string", "What the assistant answered; NA when it failed or was stopped."),
    own("latency_s", "float64", "Seconds from sending to the complete answer."),
    own("time_to_first_token_s", "float64", "Seconds from sending to the first token of any LM call within."),
    own("model", "string", "Models that were called, in order, separated by a comma and a space."),
    own("tools", "string", "Tools that were called, in order, separated by a comma and a space."),
    own("is_error", "boolean", "Whether the message failed."),
    own("error", "string", "What went wrong."),
    *_ACTIVITY,
)

CELLS: Schema = (
    own("cell_id", "string", "Notebook cell; NA where the front end sends no ids."),
    own("execution_count", "Int64", "Number in its brackets."),
    own("notebook", "string", "Path of the notebook, where it was known."),
    own("source_hash", "string", "Begin of the SHA-256 of its text: equal for equal cells."),
    own("outcome", "string", "`success`, `error` or `interrupted`."),
    own("name", "string", "Name of its trace: `cell [n]`, or what `%%trace` named it."),
    own("trace_id", "string", "Trace of this execution."),
    own("session_id", "string", "Session that it belongs to."),
    own("user_id", "string", "User who ran it."),
    own("start_time", _TIME, "When the cell began."),
    own("end_time", _TIME, "When the cell ended."),
    own("latency_s", "float64", "Seconds between the two."),
    own("error", "string", "What went wrong."),
    *_ACTIVITY,
)

SCORES: Schema = (
    _text("score_id", "id", "Id of the score."),
    _text("name", "name", "What is judged."),
    _of("value", "float64", wire.score_number, "Value of a numeric score; 1 or 0 of a boolean one."),
    _of("text_value", "string", wire.score_text, "Value of a categorical, text or correction score."),
    _text("data_type", "dataType", "`NUMERIC`, `BOOLEAN`, `CATEGORICAL`, `TEXT` or `CORRECTION`."),
    _of("subject", "string", wire.subject_kind, "What it was given to: `session`, `trace` or `observation`."),
    _of("session_id", "string", wire.subject("session"), "The session, when it was given to a session."),
    _of("trace_id", "string", wire.subject("trace"), "The trace that it, or its observation, belongs to."),
    _of(
        "observation_id", "string", wire.subject("observation"), "The observation, when it was given to one."
    ),
    _text("comment", "comment", "Remark of who gave it."),
    _text("source", "source", "`API`, `ANNOTATION` or `EVAL`."),
    _text("author_user_id", "authorUserId", "Langfuse user who gave it."),
    _text("environment", "environment", "Langfuse environment."),
    _time("timestamp", "timestamp", "When it was given."),
    _of("metadata", "json", wire.plain("metadata"), "All metadata, as a dict."),
)

SCHEMAS: Mapping[str, Schema] = {
    "observations_df": OBSERVATIONS,
    "tool_calls_df": TOOL_CALLS,
    "traces_df": TRACES,
    "sessions_df": SESSIONS,
    "messages_df": MESSAGES,
    "cells_df": CELLS,
    "scores_df": SCORES,
}

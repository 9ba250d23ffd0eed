"""What ``/api/public/v2/metrics`` can be asked: views, their dimensions and their measures.

Owns the vocabulary and how each word is read from the tables; runs nothing. Invariant: every text of SQL
here names columns through the aliases of its view (``o`` observations, ``s`` scores, ``root`` and ``scored``
the observations that a score belongs to), so any words of one view can stand in one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from research_kit.store.metrics_words import Dimension, DimensionType, Measure, View

__all__ = ["VIEWS"]


def _text(column: str, *joins: str, is_high_cardinality: bool = False) -> Dimension:
    """Describe a text column in which an empty text stands for none."""
    return Dimension(
        sql=f"nullif({column}, '')",
        stored_sql=column,
        joins=joins,
        filter_joins=joins,
        is_high_cardinality=is_high_cardinality,
    )


def _value(
    sql: str, *joins: str, value_type: DimensionType = "string", is_high_cardinality: bool = False
) -> Dimension:
    """Describe a value that filters see as answers show it."""
    return Dimension(
        sql=sql,
        stored_sql=sql,
        value_type=value_type,
        joins=joins,
        filter_joins=joins,
        is_high_cardinality=is_high_cardinality,
    )


def _number_filtered_as_text(column: str, *joins: str) -> Dimension:
    return Dimension(sql=column, stored_sql=f"CAST({column} AS TEXT)", joins=joins, filter_joins=joins)


def _tool_names(function: str, column: str, join: str) -> Dimension:
    return Dimension(
        sql=f"{join}.value", stored_sql=f"{function}({column})", value_type="arrayString", joins=(join,)
    )


def _pair(join: str) -> Dimension:
    key = f"{join}.key"
    return Dimension(sql=key, stored_sql=key, joins=(join,), is_filterable=False, is_pair=True)


def _absent(*, is_high_cardinality: bool = False) -> Dimension:
    """Describe a value that no row of this store has."""
    return Dimension(sql="NULL", stored_sql="''", is_high_cardinality=is_high_cardinality)


_OBSERVATION_DIMENSIONS: Mapping[str, Dimension] = {
    "id": _value("o.span_id", is_high_cardinality=True),
    "traceId": _value("o.trace_id", is_high_cardinality=True),
    "environment": _text("o.environment"),
    "parentObservationId": Dimension(
        sql="o.parent_id", stored_sql="coalesce(o.parent_id, '')", is_high_cardinality=True
    ),
    "isRootObservation": _value("o.is_root", value_type="boolean"),
    "type": _value("o.type"),
    "name": _value("o.name"),
    "level": _value("o.level"),
    "version": _text("o.version"),
    "userId": _text("o.user_id", is_high_cardinality=True),
    "sessionId": _text("o.session_id", is_high_cardinality=True),
    "tags": _value("o.tags", value_type="string[]"),
    "release": _text('o."release"'),
    "traceName": _text("o.trace_name"),
    "traceRelease": _text('o."release"'),
    "traceVersion": _text("o.version"),
    "providedModelName": _text("o.model"),
    "promptName": _text("o.prompt_name"),
    "promptVersion": _number_filtered_as_text("o.prompt_version"),
    "startTimeMonth": _value("strftime('%Y-%m', o.start_ms / 1000, 'unixepoch')"),
    "toolNames": _tool_names("defined_tools", "o.input", "tool_definition"),
    "calledToolNames": _tool_names("called_tools", "o.output", "tool_call"),
    "costType": _pair("cost_part"),
    "usageType": _pair("usage_part"),
    "experimentName": _absent(is_high_cardinality=True),
    "experimentDatasetId": _absent(is_high_cardinality=True),
    "experimentId": _absent(is_high_cardinality=True),
}


def _rate(tokens: str, start: str) -> str:
    """Return tokens per second of the clock; what begins and ends within one second has no rate."""
    return f"({tokens} * 1.0 / nullif(o.end_ms / 1000 - {start} / 1000, 0))"


def _always(sql: str, value_type: Literal["integer", "decimal"]) -> Measure:
    return Measure(sql=sql, value_type=value_type, is_nullable=False)


_COUNT = _always("1", "integer")

_OBSERVATION_MEASURES: Mapping[str, Measure] = {
    "count": _COUNT,
    "traceId": Measure(sql="o.trace_id", value_type="string"),
    "uniqueUserIds": Measure(sql="nullif(o.user_id, '')", value_type="string"),
    "uniqueSessionIds": Measure(sql="nullif(o.session_id, '')", value_type="string"),
    "latency": Measure(sql="(o.end_ms - o.start_ms)", value_type="integer"),
    "streamingLatency": Measure(sql="(o.end_ms - o.completion_start_ms)", value_type="integer"),
    "inputTokens": _always("o.input_usage", "integer"),
    "outputTokens": _always("o.output_usage", "integer"),
    "totalTokens": _always("o.total_usage", "integer"),
    "outputTokensPerSecond": Measure(
        sql=_rate("o.output_usage", "o.completion_start_ms"), value_type="decimal"
    ),
    "tokensPerSecond": Measure(sql=_rate("o.total_usage", "o.start_ms"), value_type="decimal"),
    "inputCost": _always("coalesce(o.input_cost, 0)", "decimal"),
    "outputCost": _always("coalesce(o.output_cost, 0)", "decimal"),
    "totalCost": Measure(sql="coalesce(o.total_cost, 0)", value_type="decimal"),
    "timeToFirstToken": Measure(sql="(o.completion_start_ms - o.start_ms)", value_type="integer"),
    "countScores": Measure(
        sql="score_count.scores", value_type="integer", is_nullable=False, joins=("score_count",)
    ),
    "toolDefinitions": Measure(
        sql="nullif(json_array_length(defined_tools(o.input)), 0)", value_type="integer"
    ),
    "toolCalls": Measure(sql="nullif(json_array_length(called_tools(o.output)), 0)", value_type="integer"),
    "costByType": Measure(
        sql="cost_part.value",
        value_type="decimal",
        is_nullable=False,
        joins=("cost_part",),
        dimension="costType",
    ),
    "usageByType": Measure(
        sql="usage_part.value",
        value_type="integer",
        is_nullable=False,
        joins=("usage_part",),
        dimension="usageType",
    ),
}

_OBSERVATION_JOINS: Mapping[str, str] = {
    "tool_definition": "JOIN json_each(defined_tools(o.input)) AS tool_definition",
    "tool_call": "JOIN json_each(called_tools(o.output)) AS tool_call",
    "cost_part": "JOIN json_each(o.cost_details) AS cost_part",
    "usage_part": "JOIN json_each(o.usage_details) AS usage_part",
    "score_count": (
        "JOIN (SELECT observation_id, count(*) AS scores FROM scores"
        " WHERE observation_id IS NOT NULL AND timestamp_ms BETWEEN :from_ms AND :to_ms"
        " GROUP BY observation_id) AS score_count ON score_count.observation_id = o.span_id"
    ),
}


def _of_subject(*subjects: str) -> str:
    """Return the id of what a score belongs to when it is one of ``subjects``."""
    names = ", ".join(f"'{subject}'" for subject in subjects)
    return f"iif(s.subject IN ({names}), s.subject_id, NULL)"


_SCORE_TRACE_ID = _of_subject("trace", "observation")

_SCORE_DIMENSIONS: Mapping[str, Dimension] = {
    "sessionId": _value(_of_subject("session"), is_high_cardinality=True),
    "datasetRunId": _value(_of_subject("experiment"), is_high_cardinality=True),
    "traceName": _text("root.trace_name", "root"),
    "userId": _text("root.user_id", "root", is_high_cardinality=True),
    "tags": _value("root.tags", "root", value_type="string[]"),
    "traceRelease": _text('root."release"', "root"),
    "traceVersion": _text("root.version", "root"),
    "observationName": _value("scored.name", "scored"),
    "observationModelName": _text("scored.model", "scored"),
    "observationPromptName": _text("scored.prompt_name", "scored"),
    "observationPromptVersion": _number_filtered_as_text("scored.prompt_version", "scored"),
    "experimentName": _absent(is_high_cardinality=True),
    "experimentId": _absent(is_high_cardinality=True),
    "id": _value("s.score_id", is_high_cardinality=True),
    "environment": _value("s.environment"),
    "name": _value("s.name"),
    "evaluatorId": _absent(),
    "source": _value("s.source"),
    "dataType": _value("s.data_type"),
    "traceId": _value(_SCORE_TRACE_ID, is_high_cardinality=True),
    "configId": _absent(),
    "timestampMonth": _value("strftime('%Y-%m', s.timestamp_ms / 1000, 'unixepoch')"),
    "timestampDay": _value("strftime('%Y-%m-%d', s.timestamp_ms / 1000, 'unixepoch')"),
    "observationId": _value("s.observation_id", is_high_cardinality=True),
}

# Of several candidates the first in time counts, so no score is counted twice.
_FIRST_OBSERVATION = (
    "JOIN observations AS {name} ON {name}.rowid = (SELECT c.rowid FROM observations AS c"
    " WHERE c.trace_id = {trace_id} AND {condition} AND c.start_ms BETWEEN :from_ms AND :to_ms"
    " ORDER BY c.start_ms LIMIT 1)"
)
_SCORE_JOINS: Mapping[str, str] = {
    "root": _FIRST_OBSERVATION.format(name="root", trace_id=_SCORE_TRACE_ID, condition="c.parent_id IS NULL"),
    "scored": _FIRST_OBSERVATION.format(
        name="scored", trace_id=_SCORE_TRACE_ID, condition="c.span_id = s.observation_id"
    ),
}
_SCORE_VALUE = Measure(sql="s.numeric_value", value_type="number")


def _score_view(
    condition: str, *, measures: Mapping[str, Measure], dimensions: Mapping[str, Dimension]
) -> View:
    return View(
        table="scores AS s",
        condition=condition,
        time_sql="s.timestamp_ms",
        time_name="timestamp",
        metadata_sql="s.metadata",
        dimensions={**_SCORE_DIMENSIONS, **dimensions},
        measures={"count": _COUNT, **measures},
        joins=_SCORE_JOINS,
    )


VIEWS: Mapping[str, View] = {
    "observations": View(
        table="observations AS o",
        condition="true",
        time_sql="o.start_ms",
        time_name="start_time",
        metadata_sql="o.metadata_stored",
        dimensions=_OBSERVATION_DIMENSIONS,
        measures=_OBSERVATION_MEASURES,
        joins=_OBSERVATION_JOINS,
    ),
    "scores-numeric": _score_view(
        "s.data_type IN ('NUMERIC', 'BOOLEAN')",
        measures={"value": _SCORE_VALUE},
        dimensions={"value": _value("s.numeric_value", value_type="number")},
    ),
    "scores-categorical": _score_view(
        "s.data_type = 'CATEGORICAL'", measures={}, dimensions={"stringValue": _value("s.text_value")}
    ),
    "scores-boolean": _score_view(
        "s.data_type = 'BOOLEAN'",
        measures={"value": _SCORE_VALUE},
        dimensions={"booleanValue": _value("s.numeric_value", value_type="boolean")},
    ),
}
"""All views by the name that a query asks for."""

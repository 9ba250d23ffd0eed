"""Questions to the notebook's DataFrames: typed operations, filters, SQL, and what charts need."""

from research_kit.agent.queries.answers import QueryAnswer, QueryError
from research_kit.agent.queries.calls import Limits, QueryCall
from research_kit.agent.queries.conditions import Condition
from research_kit.agent.queries.description import describe_frame
from research_kit.agent.queries.frames import is_frame, plain_frame
from research_kit.agent.queries.operations import Operation, frame_query
from research_kit.agent.queries.sql import sql_query

__all__ = [
    "Condition",
    "Limits",
    "Operation",
    "QueryAnswer",
    "QueryCall",
    "QueryError",
    "describe_frame",
    "frame_query",
    "is_frame",
    "plain_frame",
    "sql_query",
]

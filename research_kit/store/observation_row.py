"""The columns of one observation.

Owns their names, order and types, and the fixed vocabularies among them. Invariant: equal to the table
``observations`` that the migrations make.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

__all__ = ["COLUMNS", "LEVELS", "OBSERVATION_TYPES", "ObservationRow"]

LEVELS = ("DEBUG", "DEFAULT", "WARNING", "ERROR")
OBSERVATION_TYPES = (
    "GENERATION",
    "SPAN",
    "EVENT",
    "AGENT",
    "TOOL",
    "CHAIN",
    "RETRIEVER",
    "EVALUATOR",
    "EMBEDDING",
    "GUARDRAIL",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationRow:
    """The columns of the table ``observations``, under their names.

    Times are milliseconds since 1970. Strings that the client did not send are empty; `None` is kept for what
    the API answers as null. Columns with structure hold JSON text.
    """

    trace_id: str
    span_id: str
    start_ms: int
    trace_hash: int
    end_ms: int
    completion_start_ms: int | None
    parent_id: str | None
    is_root: bool
    type: str
    name: str
    level: str
    status_message: str
    version: str
    release: str
    environment: str
    user_id: str
    session_id: str
    trace_name: str | None
    tags: str
    is_public: bool
    model: str
    model_id: str
    pricing_tier_id: str | None
    pricing_tier_name: str | None
    input_price: str | None
    output_price: str | None
    total_price: str | None
    model_parameters: str
    usage_details: str
    input_usage: int
    output_usage: int
    total_usage: int
    cost_details: str
    input_cost: float | None
    output_cost: float | None
    total_cost: float | None
    prompt_name: str
    prompt_version: int | None
    created_ms: int
    metadata: str
    metadata_short: str | None
    metadata_stored: str
    input: str | None
    output: str | None

    def values(self) -> tuple[Any, ...]:
        """Return the columns in their order."""
        values: tuple[Any, ...] = _values_of(self)
        return values


COLUMNS = tuple(field.name for field in dataclasses.fields(ObservationRow))
_values_of = attrgetter(*COLUMNS)

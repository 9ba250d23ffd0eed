"""Scores: written one by one or in batches, listed by ``GET /api/public/v3/scores``.

Owns what a valid score is, how a second write under the same id changes it, and the batch of
``/api/public/ingestion``. Reading is in `score_list`. Invariant: the target and the time of a score are
those of its first write.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from research_kit.store.answers import ApiError, invalid_data, issue
from research_kit.store.database import Database
from research_kit.store.jsontext import compact, storable
from research_kit.store.rows import valid_environment
from research_kit.store.times import iso_to_ms, now_ms

__all__ = ["ScoreBody", "delete_score", "ingest_batch", "write_score", "write_score_list"]

_CORRECTION_NAME = "output"
_MAX_TEXT_CHARACTERS = 500
_TARGETS = {"traceId": "trace", "sessionId": "session", "datasetRunId": "experiment"}
_ONE_TARGET = (
    "Provide exactly one of the following: traceId (with optional observationId), sessionId or datasetRunId. "
    "ObservationId requires traceId."
)

_UPSERT = """
INSERT INTO scores VALUES (:score_id, :name, :data_type, :numeric_value, :text_value, :subject, :subject_id,
    :observation_id, :environment, 'API', :comment, :metadata, :queue_id, :timestamp_ms, :now_ms, :now_ms)
ON CONFLICT (score_id) DO UPDATE SET
    name = excluded.name, data_type = excluded.data_type, numeric_value = excluded.numeric_value,
    text_value = excluded.text_value, environment = excluded.environment,
    comment = coalesce(excluded.comment, comment), queue_id = coalesce(excluded.queue_id, queue_id),
    metadata = excluded.metadata, updated_ms = excluded.updated_ms
"""


class ScoreBody(BaseModel):
    """One score as a client sends it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str | None = Field(default=None, min_length=1)
    name: str = Field(min_length=1)
    value: FiniteFloat | str
    dataType: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"] | None = None
    traceId: str | None = None
    observationId: str | None = None
    sessionId: str | None = None
    datasetRunId: str | None = None
    configId: str | None = None
    queueId: str | None = None
    environment: str | None = None
    comment: str | None = None
    timestamp: str | None = None
    metadata: Any = None

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        targets = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(targets) != 1 or (self.observationId is not None and self.traceId is None):
            raise ValueError(_ONE_TARGET)
        return self

    @model_validator(mode="after")
    def _has_fitting_value(self) -> Self:
        if self.data_type in ("NUMERIC", "BOOLEAN") and isinstance(self.value, str):
            raise ValueError("Invalid input: expected number, received string")
        if self.data_type not in ("NUMERIC", "BOOLEAN") and not isinstance(self.value, str):
            raise ValueError("Invalid input: expected string, received number")
        if self.data_type == "BOOLEAN" and self.value not in (0, 1):
            raise ValueError("Value must be a number equal to either 0 or 1 for data type BOOLEAN")
        if self.data_type == "TEXT" and not 1 <= len(str(self.value)) <= _MAX_TEXT_CHARACTERS:
            raise ValueError(f"Expected string to have 1 to {_MAX_TEXT_CHARACTERS} characters")
        return self

    @property
    def data_type(self) -> str:
        """The given type, or the one that the value suggests."""
        return self.dataType or ("CATEGORICAL" if isinstance(self.value, str) else "NUMERIC")

    @property
    def target(self) -> tuple[str, str]:
        """Kind and id of what is scored."""
        kind, identity = next(
            (kind, getattr(self, name)) for name, kind in _TARGETS.items() if getattr(self, name) is not None
        )
        return ("observation" if self.observationId is not None else kind), identity


def write_score(database: Database, content: object) -> dict[str, Any]:
    """Store one score and return the answer.

    Raises:
        ApiError: 400 when it is invalid.
    """
    body = _validated(content)
    with database.writing() as connection:
        return {"id": _upsert(connection, body, timestamp_ms=now_ms())}


def write_score_list(database: Database, contents: list[Any]) -> dict[str, Any]:
    """Store the valid scores of a list, which is what the SDK sends from 5.0 on, and count them.

    Unlike a single score, one in a list keeps the ``timestamp`` that it carries.
    """
    errors: list[dict[str, str]] = []
    arrived_ms = now_ms()
    with database.writing() as connection:
        for content in contents:
            try:
                body = _validated(content)
            except ApiError as error:
                errors.append({"message": "; ".join(found["message"] for found in error.body["error"])})
                continue
            _upsert(connection, body, timestamp_ms=_own_timestamp_ms(body) or arrived_ms)
    return {"accepted": len(contents) - len(errors), "rejected": len(errors), "errors": errors}


def ingest_batch(database: Database, content: object) -> dict[str, Any]:
    """Store the ``score-create`` events of a batch; other events are refused one by one.

    Raises:
        ApiError: 400 when the request holds no batch.
    """
    events = content.get("batch") if isinstance(content, dict) else None
    if not isinstance(events, list):
        problem = "Invalid input: expected array, received undefined"
        raise ApiError(400, {"message": "Invalid request data", "errors": [problem]})
    successes: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    with database.writing() as connection:
        for event in events:
            problem_found = _ingest_event(connection, event)
            event_id = event.get("id", "unknown") if isinstance(event, dict) else "unknown"
            if problem_found is None:
                successes.append({"id": event_id, "status": 201})
            else:
                errors.append({"id": event_id, "status": 400, "message": problem_found})
    return {"successes": successes, "errors": errors}


def delete_score(database: Database, score_id: str) -> None:
    """Delete one score; an unknown id is no error."""
    with database.writing() as connection:
        connection.execute("DELETE FROM scores WHERE score_id = ?", (score_id,))


def _ingest_event(connection: sqlite3.Connection, event: object) -> str | None:
    """Store one event of a batch; the answer says what is wrong with it, if anything."""
    if not isinstance(event, dict):
        return "Invalid request data"
    if event.get("type") != "score-create":
        return "Event type not accepted"
    try:
        body = _validated(event.get("body"))
        timestamp_ms = iso_to_ms(str(event.get("timestamp")))
    except (ApiError, ValueError, OverflowError):
        return "Invalid request data"
    _upsert(connection, body, timestamp_ms=timestamp_ms)
    return None


def _own_timestamp_ms(body: ScoreBody) -> int | None:
    try:
        return iso_to_ms(body.timestamp) if body.timestamp else None
    except (ValueError, OverflowError):
        return None


def _validated(content: object) -> ScoreBody:
    try:
        return ScoreBody.model_validate(content)
    except ValidationError as error:
        issues = [issue(list(found["loc"]), found["msg"], code=found["type"]) for found in error.errors()]
        raise invalid_data(*issues) from None


def _upsert(connection: sqlite3.Connection, body: ScoreBody, *, timestamp_ms: int) -> str:
    score_id = body.id or str(uuid.uuid4())
    if body.configId is not None:
        # Every configuration is unknown here, and the recorded server drops such scores after answering.
        return score_id
    subject, subject_id = body.target
    columns = {
        "score_id": score_id,
        "name": _CORRECTION_NAME if body.data_type == "CORRECTION" else body.name,
        "data_type": body.data_type,
        "numeric_value": None if isinstance(body.value, str) else body.value,
        "text_value": body.value if isinstance(body.value, str) else None,
        "subject": subject,
        "subject_id": subject_id,
        "observation_id": body.observationId,
        "environment": valid_environment(body.environment or "default"),
        "comment": body.comment,
        "metadata": _merged_metadata(connection, score_id, body.metadata),
        "queue_id": body.queueId,
        "timestamp_ms": timestamp_ms,
        "now_ms": now_ms(),
    }
    known = {name: storable(value) if isinstance(value, str) else value for name, value in columns.items()}
    connection.execute(_UPSERT, known)
    return score_id


def _merged_metadata(connection: sqlite3.Connection, score_id: str, metadata: object) -> str:
    """Return the metadata as JSON text, laid key by key over what the score has already."""
    if metadata is not None and not isinstance(metadata, Mapping):
        metadata = {"metadata": metadata}
    found = connection.execute("SELECT metadata FROM scores WHERE score_id = ?", (score_id,)).fetchone()
    return compact({**(json.loads(found[0]) if found else {}), **(metadata or {})})

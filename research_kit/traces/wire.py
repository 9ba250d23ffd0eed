"""The rows of a Langfuse server as they come, and how one value is read from a row.

Owns camelCase: no other module of the read path knows the server's names. Invariant: a value that the server
does not know is None here, even where the server writes an empty text or 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

__all__ = ["ObservationRow", "ScoreRow", "as_text", "json_text_of", "json_value"]

Read = Callable[[Mapping[str, Any]], object]
# No count of cells or messages comes near; thousands of digits would be an error.
_MAX_COUNT_DIGITS = 18
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=str).encode


class ObservationRow(TypedDict, total=False):
    """One row of ``GET /api/public/v2/observations``; which keys it has depends on the field groups."""

    id: str
    traceId: str
    sessionId: str
    userId: str
    parentObservationId: str | None
    type: str
    name: str
    traceName: str | None
    startTime: str
    endTime: str | None
    completionStartTime: str | None
    createdAt: str
    latency: float | None
    timeToFirstToken: float | None
    model: str
    usageDetails: dict[str, int]
    inputUsage: int
    outputUsage: int
    totalUsage: int
    costDetails: dict[str, float]
    inputCost: float | None
    outputCost: float | None
    totalCost: float
    inputPrice: str | None
    outputPrice: str | None
    level: str
    statusMessage: str
    isRootObservation: bool
    environment: str
    release: str
    version: str
    tags: list[str]
    promptName: str
    promptVersion: int | None
    input: str | None
    output: str | None
    metadata: dict[str, Any]


class ScoreRow(TypedDict, total=False):
    """One row of ``GET /api/public/v3/scores``."""

    id: str
    name: str
    dataType: str
    value: float | bool | str
    subject: dict[str, str]
    timestamp: str
    source: str
    comment: str | None
    environment: str
    authorUserId: str | None
    metadata: dict[str, Any]


def plain(key: str) -> Read:
    """Read the value of ``key`` as it is."""
    return lambda row: row.get(key)


def text(key: str) -> Read:
    """Read a text; the server writes empty ones for what it does not know."""
    return lambda row: row.get(key) or None


def json_value(value: object) -> object:
    """Return what a JSON text holds when it is an object, a list or a quoted text; any other value as it is.

    ``42`` and ``true`` stay text: a client that sent the text and one that sent the number look the same.
    """
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def json_text_of(value: object) -> str | None:
    """Return the JSON text that `json_value` reads as ``value``; None stays None."""
    try:
        return None if value is None else _ENCODE(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return _ENCODE("[too deeply nested]")


def as_text(value: object) -> str | None:
    """Return a parsed input or output as text: a text as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def metadata_text(key: str) -> Read:
    """Read a metadata value as text; the server turns texts that look like JSON into their values."""

    def read(row: Mapping[str, Any]) -> str | None:
        value = (row.get("metadata") or {}).get(key)
        return None if value is None or value == "" else str(value)

    return read


def metadata_count(key: str) -> Read:
    """Read a metadata value as a whole number; None when it is none."""

    def read(row: Mapping[str, Any]) -> int | None:
        value = (row.get("metadata") or {}).get(key)
        text = "" if isinstance(value, bool) else str(value)
        return int(text) if text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS else None

    return read


def metadata_truth(key: str) -> Read:
    """Read a metadata value that is true or false; None when it is neither."""

    def read(row: Mapping[str, Any]) -> bool | None:
        value = (row.get("metadata") or {}).get(key)
        return value if isinstance(value, bool) else None

    return read


def number(key: str) -> Read:
    """Read a number that the server writes as text."""

    def read(row: Mapping[str, Any]) -> float | None:
        value = row.get(key)
        return float(value) if value else None

    return read


def tags(row: Mapping[str, Any]) -> str | None:
    """Read the tags as one text."""
    return ", ".join(row.get("tags") or ()) or None


def cost_usd(row: Mapping[str, Any]) -> float | None:
    """Read the cost; without details it is unknown, whatever ``totalCost`` says."""
    details = row.get("costDetails")
    if not details:
        return None
    total = details.get("total")
    return float(sum(details.values()) if total is None else total)


def usage(word: str, key: str) -> Read:
    """Read ``key`` when the usage details have a key with ``word`` in it; the server writes 0 otherwise."""

    def read(row: Mapping[str, Any]) -> object:
        details = row.get("usageDetails") or {}
        return row.get(key) if any(word in name for name in details) else None

    return read


def total_tokens(row: Mapping[str, Any]) -> object:
    """Read the sum of all tokens."""
    return row.get("totalUsage") if row.get("usageDetails") else None


def cached_tokens(row: Mapping[str, Any]) -> int | None:
    """Read the input tokens that came from the provider's cache, under any of the providers' names."""
    return _sum_where(row, _is_cache_read)


def reasoning_tokens(row: Mapping[str, Any]) -> int | None:
    """Read the output tokens that the model thought with."""
    return _sum_where(row, lambda name: "reasoning" in name)


def is_error(row: Mapping[str, Any]) -> bool | None:
    """Read whether the observation failed."""
    level = row.get("level")
    return None if level is None else level == "ERROR"


def error(row: Mapping[str, Any]) -> str | None:
    """Read what went wrong; None when nothing did."""
    return row.get("statusMessage") or None if row.get("level") == "ERROR" else None


def tokens_per_second(row: Mapping[str, Any]) -> float | None:
    """Read output tokens by seconds; None when either is unknown or 0."""
    tokens, latency_s = row.get("outputUsage"), row.get("latency")
    return tokens / latency_s if tokens and isinstance(latency_s, (int, float)) and latency_s else None


def cached_cost_usd(row: Mapping[str, Any]) -> float | None:
    """Read the cost of the input tokens that came from the provider's cache."""
    found = [cost for name, cost in (row.get("costDetails") or {}).items() if _is_cache_read(name)]
    return float(sum(found)) if found else None


def subject(kind: str) -> Read:
    """Read the id of a score's subject when it is of this kind; of an observation's also its trace."""

    def read(row: Mapping[str, Any]) -> object:
        target = row.get("subject") or {}
        if target.get("kind") == kind:
            return target.get("id")
        return target.get("traceId") if kind == "trace" else None

    return read


def subject_kind(row: Mapping[str, Any]) -> object:
    """Read what a score was given to."""
    return (row.get("subject") or {}).get("kind")


def score_number(row: Mapping[str, Any]) -> float | None:
    """Read the value of a numeric or boolean score."""
    value = row.get("value")
    return float(value) if isinstance(value, (int, float)) else None


def score_text(row: Mapping[str, Any]) -> str | None:
    """Read the value of a categorical, text or correction score."""
    value = row.get("value")
    return value if isinstance(value, str) else None


def _is_cache_read(name: str) -> bool:
    return "cache" in name and "creation" not in name and "write" not in name


def _sum_where(row: Mapping[str, Any], is_wanted: Callable[[str], bool]) -> int | None:
    found = [count for name, count in (row.get("usageDetails") or {}).items() if is_wanted(name)]
    return sum(found) if found else None

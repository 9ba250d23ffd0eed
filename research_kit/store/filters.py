"""The ``filter`` parameter of the observations list: JSON conditions into SQL.

Owns the columns that can be filtered and the shape of a condition. Invariant: a condition that
is not understood refuses the request; none is ever ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from research_kit.store.answers import ApiError, bad_request, invalid_data, issue
from research_kit.store.filter_operators import KEY_OPERATORS, OPERATORS, bound_value
from research_kit.store.jsontext import storable
from research_kit.store.times import iso_to_ms
from research_kit.store.word_search import split_words

__all__ = ["Condition", "parse_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition on rows.

    Attributes:
        column: The column under its name in the API.
        sql: A truth value with one ``?`` for each of ``values``.
        values: What is bound to the question marks.
    """

    column: str
    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """What can be asked of a column.

    Attributes:
        sql: The value as an SQL expression.
        filter_types: The types of filter that fit, the one that error messages name first.
    """

    sql: str
    filter_types: tuple[str, ...]


def _columns(filter_types: tuple[str, ...], **sql: str) -> dict[str, _Column]:
    return {name: _Column(sql=text, filter_types=(*filter_types, "null")) for name, text in sql.items()}


_LARGEST_NUMBER = 2**63 - 1
_LATENCY_S = "((end_ms - start_ms) / 1000.0)"
_COLUMNS: Mapping[str, _Column] = {
    **_columns(
        ("stringOptions", "string"),
        id="span_id",
        traceId="trace_id",
        name="name",
        type="type",
        level="level",
        statusMessage="status_message",
        version="version",
        release='"release"',
        environment="environment",
        userId="user_id",
        sessionId="session_id",
        traceName="trace_name",
        parentObservationId="parent_id",
        model="model",
        providedModelName="model",
        modelId="model_id",
        promptName="prompt_name",
        input="input",
        output="output",
    ),
    **_columns(
        ("number",),
        latency=_LATENCY_S,
        timeToFirstToken="((completion_start_ms - start_ms) / 1000.0)",
        tokensPerSecond=f"(output_usage / nullif({_LATENCY_S}, 0))",
        inputTokens="input_usage",
        outputTokens="output_usage",
        totalTokens="total_usage",
        tokens="total_usage",
        inputCost="input_cost",
        outputCost="output_cost",
        totalCost="total_cost",
        promptVersion="prompt_version",
    ),
    **_columns(
        ("datetime",), startTime="start_ms", endTime="end_ms", completionStartTime="completion_start_ms"
    ),
    **_columns(("arrayOptions",), tags="tags", traceTags="tags"),
    **_columns(
        ("boolean",),
        isRootObservation="is_root",
        hasParentObservation="(parent_id IS NOT NULL)",
        hasInput="(input IS NOT NULL)",
        hasOutput="(output IS NOT NULL)",
    ),
    "metadata": _Column(sql="metadata_stored", filter_types=("stringObject",)),
}

_FREE_TEXT = frozenset({"input", "output"})
_EMPTY_LIST = (
    "Value array must not be empty unless operator is 'all of' or 'none of' "
    "(which represent waiting for selection)"
)


def parse_filter(text: str | None) -> tuple[Condition, ...]:
    """Read the ``filter`` parameter; no text and an empty list filter nothing.

    Raises:
        ApiError: 400 when a condition is malformed, unknown or does not fit its column.
    """
    if not text:
        return ()
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid_data(issue(["filter"], "Invalid JSON in filter parameter")) from None
    if not isinstance(entries, list):
        raise invalid_data(issue(["filter"], "Invalid input: expected array", code="invalid_type"))
    for position, entry in enumerate(entries):
        _check_shape(position, entry)
    _check_free_text(entries)
    return tuple(_condition(entry) for entry in entries)


def _check_shape(position: int, entry: object) -> None:
    where: list[str | int] = ["filter", position]
    if not isinstance(entry, dict):
        raise invalid_data(issue(where, "Invalid input: expected object", code="invalid_type"))
    filter_type = entry.get("type")
    if not isinstance(filter_type, str) or filter_type not in OPERATORS:
        raise invalid_data(issue([*where, "type"], "Invalid input", code="invalid_union"))
    if not isinstance(entry.get("column"), str):
        raise invalid_data(issue([*where, "column"], "Invalid input: expected string", code="invalid_type"))
    if filter_type.endswith("Object") and not _is_text(entry.get("key")):
        raise invalid_data(issue([*where, "key"], "Invalid input: expected string", code="invalid_type"))
    if not _is_operator(entry["column"], filter_type, entry.get("operator")):
        options = ", ".join(OPERATORS[filter_type])
        raise invalid_data(issue([*where, "operator"], f"Invalid option: expected one of {options}"))
    if entry["operator"] in KEY_OPERATORS:
        entry.setdefault("value", "")
    _check_value([*where, "value"], filter_type, entry)


def _is_operator(column: str, filter_type: str, operator: object) -> bool:
    can_match = filter_type == "stringObject" or (filter_type == "string" and column in _FREE_TEXT)
    return operator in OPERATORS[filter_type] or (operator == "matches" and can_match)


def _check_value(where: list[str | int], filter_type: str, entry: Mapping[str, Any]) -> None:
    value = entry.get("value")
    expected, is_right = _EXPECTED_VALUES[filter_type]
    if not is_right(value):
        raise invalid_data(issue(where, f"Invalid input: expected {expected}", code="invalid_type"))
    if filter_type.endswith("Options") and not value and entry["operator"] == "any of":
        raise invalid_data(issue(where, _EMPTY_LIST))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER


def _is_date(value: object) -> bool:
    try:
        return isinstance(value, str) and iso_to_ms(value) is not None
    except (ValueError, OverflowError):
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and storable(value) == value


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


_EXPECTED_VALUES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "string": ("string", _is_text),
    "stringOptions": ("array of strings", _is_text_list),
    "arrayOptions": ("array of strings", _is_text_list),
    "number": ("number", _is_number),
    "datetime": ("date", _is_date),
    "boolean": ("boolean", _is_boolean),
    "null": ("an empty string", lambda value: value == ""),
    "stringObject": ("string", _is_text),
    "numberObject": ("number", _is_number),
    "booleanObject": ("boolean", _is_boolean),
    "categoryOptions": ("array of strings", _is_text_list),
}


def _check_free_text(entries: list[dict[str, Any]]) -> None:
    asked = [entry for entry in entries if entry["column"] in _FREE_TEXT and entry["type"] == "string"]
    if asked and not any(entry["operator"] in ("=", "matches") for entry in asked):
        raise bad_request("Input/output filters require at least one `matches` or `=` operator.")


def _condition(entry: Mapping[str, Any]) -> Condition:
    name, filter_type, operator, value = entry["column"], entry["type"], entry["operator"], entry["value"]
    column = _COLUMNS.get(name)
    if column is None:
        raise bad_request(f"Column {name} does not match a UI / CH table mapping.")
    if filter_type not in column.filter_types:
        raise _misfit(name, filter_type, column)
    if operator == "matches":
        return _words_condition(entry, column)
    sql, value = OPERATORS[filter_type][operator], bound_value(filter_type, value)
    if filter_type == "stringObject":
        return _bound(name, sql, _METADATA_VALUE, value, key=entry["key"])
    return _bound(name, sql, column.sql, value)


_METADATA_VALUE = "(SELECT value FROM json_each(metadata_stored) WHERE key = ?)"


def _bound(name: str, sql: str, column: str, value: object, *, key: str | None = None) -> Condition:
    """Put the column into the SQL and repeat the bound values as often as it asks for them."""
    values: list[Any] = []
    pieces = re.split(r"(\{column\}|\{value\})", sql)
    for position, piece in enumerate(pieces):
        if piece == "{column}":
            pieces[position] = column
            values.extend([key] if key is not None else [])
        elif piece == "{value}":
            pieces[position] = "?"
            values.append(value)
    return Condition(column=name, sql="".join(pieces), values=tuple(values))


def _words_condition(entry: Mapping[str, Any], column: _Column) -> Condition:
    is_metadata = entry["type"] == "stringObject"
    words = split_words(entry["value"] if is_metadata else entry["value"].lower())
    if not words:
        raise bad_request("`matches` requires at least one search token.")
    subject = _METADATA_VALUE if is_metadata else column.sql
    values: tuple[Any, ...] = (json.dumps(words), 0 if is_metadata else 1)
    if is_metadata:
        values = (entry["key"], *values)
    return Condition(column=entry["column"], sql=f"has_words({subject}, ?, ?)", values=values)


def _misfit(name: str, filter_type: str, column: _Column) -> ApiError:
    expected = column.filter_types[0]
    return bad_request(
        f"Invalid filter type '{filter_type}' for column '{name}'. Expected filter type '{expected}'."
    )

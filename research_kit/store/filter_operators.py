"""The operators of filters as SQL, for the observations list and for metrics.

Owns what an operator means; which column takes which type of filter is decided by those who ask. Invariant:
text is compared by character, upper and lower case apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from research_kit.store.times import iso_to_ms

__all__ = ["KEY_OPERATORS", "OPERATORS", "bound_value"]

_STRING_SQL = {
    "=": "{column} = {value}",
    "contains": "instr({column}, {value}) > 0",
    "does not contain": "instr({column}, {value}) = 0",
    "starts with": "substr({column}, 1, length({value})) = {value}",
    "ends with": "substr({column}, length({column}) - length({value}) + 1) = {value}",
}
_IN_LIST = "(SELECT value FROM json_each({value}))"
_OPTIONS_SQL = {"any of": f"{{column}} IN {_IN_LIST}", "none of": f"{{column}} NOT IN {_IN_LIST}"}
_ANY_PART = f"EXISTS (SELECT 1 FROM json_each({{column}}) WHERE value IN {_IN_LIST})"
_ARRAY_SQL = {
    "any of": _ANY_PART,
    "none of": f"NOT {_ANY_PART}",
    "all of": (
        "NOT EXISTS (SELECT 1 FROM json_each({value})"
        " WHERE value NOT IN (SELECT value FROM json_each({column})))"
    ),
}
_COMPARISON_SQL = {operator: f"{{column}} {operator} {{value}}" for operator in ("=", ">", "<", ">=", "<=")}
_BOOLEAN_SQL = {"=": "{column} = {value}", "<>": "{column} <> {value}"}

# Whether there is the key at all; these need no value.
_KEY_SQL = {"is set": "{column} IS NOT NULL", "is not set": "{column} IS NULL"}
KEY_OPERATORS = frozenset(_KEY_SQL)

OPERATORS: Mapping[str, Mapping[str, str]] = {
    "string": _STRING_SQL,
    "stringOptions": _OPTIONS_SQL,
    "arrayOptions": _ARRAY_SQL,
    "categoryOptions": _OPTIONS_SQL,
    "number": _COMPARISON_SQL,
    "datetime": {operator: sql for operator, sql in _COMPARISON_SQL.items() if operator != "="},
    "boolean": _BOOLEAN_SQL,
    "null": {"is null": "{column} IS NULL", "is not null": "{column} IS NOT NULL"},
    "stringObject": {**_STRING_SQL, **_KEY_SQL},
    "numberObject": _COMPARISON_SQL,
    "booleanObject": _BOOLEAN_SQL,
}
"""The operators of each type of filter, as SQL with ``{column}`` and ``{value}`` to fill in."""


def bound_value(filter_type: str, value: Any) -> Any:
    """Return ``value``, whose shape is checked already, as the operator's SQL takes it."""
    if filter_type.endswith("Options"):
        return json.dumps(value)
    return iso_to_ms(value) if filter_type == "datetime" else value

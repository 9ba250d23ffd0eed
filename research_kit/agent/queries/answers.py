"""What a query answers, and the words for single values.

Owns the answer, the refusal and how values are shown; computes nothing. Invariant: whatever a value or a name
is, the words for it are short.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = ["QueryAnswer", "QueryError", "json_value", "listed", "near_names", "plain", "show"]

_MAX_CELL = 60
_MAX_VALUE = 1_000
_MAX_LISTED = 30
_MAX_COMPARED = 2_000
# Comparing two strings takes the product of their lengths.
_MAX_COMPARED_CHARACTERS = 80


class QueryError(ValueError):
    """A query that does not fit the frame; the message names what would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """The result of a query.

    Attributes:
        text: The result in words.
        structured: The same as JSON: ``value`` for one number, ``groups`` or ``rows`` for a table.
    """

    text: str
    structured: dict[str, Any]


def show(value: object) -> str:
    """Return a value as text, numbers with at most four decimals."""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.6g}"
    text = "no value" if value is None else str(value)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."


def plain(value: Any) -> Any:
    """Return a JSON value for a scalar of numpy or pandas; None for a missing one."""
    import pandas as pd

    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, int | bool) else str(value)[:_MAX_VALUE]


def json_value(value: Any) -> Any:
    """Return a JSON value that is short, for a cell of a table."""
    simple = plain(value)
    return show(simple) if isinstance(simple, str) else simple


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three of ``names`` that resemble ``name``."""
    known = {other[:_MAX_COMPARED_CHARACTERS]: other for other in islice(names, _MAX_COMPARED)}
    near = difflib.get_close_matches(name[:_MAX_COMPARED_CHARACTERS], known, n=3, cutoff=0.5)
    return [known[other] for other in near]


def listed(names: Iterable[str]) -> str:
    """Return the first names in quotes."""
    return ", ".join(repr(show(name)) for name in islice(names, _MAX_LISTED))

"""HTML and JSON compared by what they say, and tables cell by cell.

Owns the reading of both into plain values; decides nothing about tolerances. Invariant: two texts with the
same elements, attributes and words are the same, whatever the order of attributes and the blanks between.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import zip_longest
from typing import Any

from research_kit.regression.tolerance import is_within

__all__ = ["is_same_html", "is_same_json", "sort_sets", "table_differences"]

# What a front end sets by itself, and says nothing about the content.
_IGNORED_ATTRIBUTES = frozenset({"style", "width", "height", "border", "class"})
_SKIPPED_ELEMENTS = frozenset({"style", "script"})
_SET = re.compile(r"\{([^{}:\n]*,[^{}:\n]*)\}")
_SHOWN_CELL_COUNT = 40
Rows = list[list[str]]


def is_same_html(expected: str, actual: str, tolerance: float) -> bool:
    """Whether two HTML texts have the same elements and the same words, numbers within ``tolerance``."""
    one, other = _tokens(expected), _tokens(actual)
    return len(one) == len(other) and all(
        before == after or bool(tolerance and is_text and was_text and is_within(before, after, tolerance))
        for (was_text, before), (is_text, after) in zip(one, other, strict=True)
    )


def is_same_json(expected: Any, actual: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within ``tolerance``."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            is_same_json(expected[key], actual[key], tolerance) for key in expected
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            is_same_json(one, other, tolerance) for one, other in zip(expected, actual, strict=True)
        )
    if _is_number(expected) and _is_number(actual):
        return math.isclose(
            expected, actual, rel_tol=tolerance, abs_tol=0.0 if expected and actual else tolerance
        )
    return type(expected) is type(actual) and bool(expected == actual)


def sort_sets(text: str) -> str:
    """Put the members of printed sets into one order: a set has none, and prints another one each time."""
    return _SET.sub(lambda found: "{" + ", ".join(sorted(map(str.strip, found[1].split(",")))) + "}", text)


def table_differences(expected: str, actual: str, tolerance: float) -> str:
    """Return the cells in which two HTML tables differ, a line each; empty when they are no two tables."""
    before, after = _tables(expected), _tables(actual)
    if len(before) != 1 or len(after) != 1 or not before[0] or not after[0]:
        return ""
    return "\n".join(_compare_tables(before[0], after[0], tolerance))


def _compare_tables(before: Rows, after: Rows, tolerance: float) -> Iterator[str]:
    if before[0] != after[0]:
        lost = [name for name in before[0] if name not in after[0]]
        new = [name for name in after[0] if name not in before[0]]
        yield f"columns: lost {lost}, new {new}" if lost or new else "columns: in another order"
        return
    if len(before) != len(after):
        yield f"rows: {len(before) - 1}, now {len(after) - 1}"
    found = list(_compare_cells(before, after, tolerance))
    yield from found[:_SHOWN_CELL_COUNT]
    if len(found) > _SHOWN_CELL_COUNT:
        yield f"... and {len(found) - _SHOWN_CELL_COUNT} more cells"


def _compare_cells(before: Rows, after: Rows, tolerance: float) -> Iterator[str]:
    names, nothing = before[0], list[str]()
    for one, other in zip_longest(before[1:], after[1:], fillvalue=nothing):
        label = (one or other or [""])[0]
        for column, (old, new) in enumerate(zip_longest(one, other, fillvalue="(nothing)")):
            if old != new and not is_within(old, new, tolerance):
                name = names[column] if column < len(names) and names[column] else f"column {column}"
                yield f"row {label}, {name}: {old} -> {new}{_change(old, new)}"


def _change(old: str, new: str) -> str:
    try:
        before, after = float(old), float(new)
    except ValueError:
        return ""
    return f" ({100 * (after / before - 1):+.3g} %)" if before and math.isfinite(after / before) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Reader(HTMLParser):
    """Reads elements and words, and the cells of tables."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tokens: list[tuple[bool, str]] = []
        self.tables: list[Rows] = []
        self._skipped = 0
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED_ELEMENTS:
            self._skipped += 1
            return
        kept = sorted((name, value or "") for name, value in attrs if name not in _IGNORED_ATTRIBUTES)
        self.tokens.append((False, f"<{tag} {json.dumps(kept)}>"))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables and self.tables[-1]:
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED_ELEMENTS:
            self._skipped = max(0, self._skipped - 1)
            return
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join(self._cell))
            self._cell = None
        self.tokens.append((False, f"</{tag}>"))

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if not words or self._skipped:
            return
        self.tokens.append((True, words))
        if self._cell is not None:
            self._cell.append(words)


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


def _tokens(text: str) -> list[tuple[bool, str]]:
    return _read(text).tokens


def _tables(text: str) -> list[Rows]:
    return _read(text).tables

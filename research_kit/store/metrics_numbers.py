"""Percentiles and histograms as functions of SQL.

Owns the two aggregations that SQLite lacks. Invariant: each gets all values of a group as one JSON list,
which SQLite collects and Python parses without a call per row.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["aggregating", "histogram", "quantile"]


@contextmanager
def aggregating(connection: sqlite3.Connection) -> Iterator[None]:
    """Let SQL on ``connection`` call ``quantile`` and ``histogram`` within the block."""
    groups = _Groups()
    functions = {"quantile": groups.quantile, "histogram": groups.histogram}
    for name, function in functions.items():
        connection.create_function(name, 2, function, deterministic=True)
    try:
        yield
    finally:
        # The connection outlives the query, the values of its last group must not.
        for name in functions:
            connection.create_function(name, 2, None)


def quantile(ordered: list[float], share: float) -> float | None:
    """Return the value at ``share`` of sorted values, interpolated between its neighbours."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def histogram(ordered: list[float], bin_count: int) -> list[tuple[float, float, int]]:
    """Return bins of equal width as (lower, upper, height); the last one holds its upper bound too."""
    if not ordered:
        return []
    lowest, highest = ordered[0], ordered[-1]
    width = (highest - lowest) / bin_count
    if not (width > 0 and math.isfinite(width)):
        return [(lowest, highest, len(ordered))]
    heights = [0] * bin_count
    for value in ordered:
        heights[min(int((value - lowest) / width), bin_count - 1)] += 1
    bounds = [lowest + number * width for number in range(bin_count)] + [highest]
    return list(zip(bounds, bounds[1:], heights, strict=False))


class _Groups:
    """The functions as SQL calls them; several percentiles of one group sort its values once."""

    def __init__(self) -> None:
        self._text = "[]"
        self._ordered: list[float] = []

    def quantile(self, values: str, share: float) -> float | None:
        return quantile(self._sorted(values), share)

    def histogram(self, values: str, bin_count: int) -> str:
        return json.dumps(histogram(self._sorted(values), bin_count))

    def _sorted(self, values: str) -> list[float]:
        if values != self._text:
            self._text, self._ordered = values, sorted(json.loads(values))
        return self._ordered

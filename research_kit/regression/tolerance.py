"""Texts that say the same but for small differences of their numbers.

Owns what a number in an output is. Does not decide where a tolerance applies. Invariant: with tolerance 0
only the widths of columns may differ, and a text without numbers has to be the same.
"""

from __future__ import annotations

import math
import re

__all__ = ["is_within"]

# Not the digits of names such as column1 or v2, and not the parts of 1.2.3 or 2026-11-24.
_NUMBER = re.compile(r"(?<![\w.])(?<!\d-)[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w]|\.\d|-\d)")
# Tables are as wide as their longest number.
_FILL = re.compile(r"[ \t]+|-{2,}")


def is_within(expected: str, actual: str, tolerance: float) -> bool:
    """Whether two texts are the same when their numbers may differ.

    Args:
        expected: One text.
        actual: The other text.
        tolerance: The largest relative difference of two numbers, and the largest absolute one where a number
            is 0; NaN and infinity are words, which have to be the same.
    """
    if _frame(expected) != _frame(actual):
        return False
    pairs = zip(_numbers(expected), _numbers(actual), strict=True)
    return all(
        math.isclose(one, other, rel_tol=tolerance, abs_tol=0.0 if one and other else tolerance)
        for one, other in pairs
    )


def _frame(text: str) -> list[str]:
    """Return what stands around the numbers."""
    return [_FILL.sub(" ", part).strip(" ") for part in _NUMBER.split(text)]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]

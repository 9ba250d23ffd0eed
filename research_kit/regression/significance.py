"""Whether a measure of repeated runs is above the accepted one, or only looks so.

Owns the test; knows neither runs nor files. Invariant: the same numbers give the same answer, on every
machine and whatever extras are installed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import fmean

__all__ = ["LEVEL", "Comparison", "compare_samples"]

LEVEL = 0.05
# Up to 8 against 8 runs every regrouping is looked at.
_MOST_EXACT = 20_000
_RESAMPLE_COUNT = 9_999
# Regroupings of equal numbers must not differ by rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Repeated runs against the accepted ones, in one measure.

    Attributes:
        before: Mean of the accepted runs.
        after: Mean of the new ones.
        before_count: How many accepted runs there are.
        after_count: How many new ones.
        p_value: How often chance alone would bring a difference as large, one-sided; 1 when ``after`` is not
            above.
        is_significant: Whether that is less than `LEVEL`, or as rare as these counts allow.
    """

    before: float
    after: float
    before_count: int
    after_count: int
    p_value: float
    is_significant: bool

    @property
    def change(self) -> float | None:
        """The change as a part of ``before``; None when that is 0."""
        return self.after / self.before - 1 if self.before else None

    def is_worse(self, *, tolerance: float, resolution: float) -> bool:
        """Whether ``after`` is above ``before`` by more than a part, and not by chance.

        Args:
            tolerance: The part.
            resolution: What the numbers are rounded to, in their own unit.
        """
        return self.after > self.before * (1 + tolerance) + resolution and self.is_significant


def compare_samples(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """Compare two samples that hold at least one number each.

    It is a permutation test of the difference of the means (Pitman 1937): if nothing has changed, every way
    to deal the numbers out to both sides is as likely. It is exact for any distribution, which a t-test of
    five costs with an outlier is not, and needs no library, so that the verdict does not depend on an extra.
    Against a single accepted number, which is taken as it is, the signs of the differences to it are changed
    instead (Fisher 1935). Beyond 20,000 regroupings a fixed sequence of random ones is counted, the observed
    one included (Phipson and Smyth 2010).

    Few runs cannot be significant in this sense: 2 against 2 have 6 regroupings. Then the rarest outcome
    counts, that all new runs are above all accepted ones.
    """
    base = fmean(before)
    observed = fmean(after) - base
    single = len(before) == 1
    shifts = _signed([value - base for value in after]) if single else _regrouped(before, after)
    count, as_large = 0, 0
    margin = _ROUNDING * max(map(abs, (*before, *after)))
    for shift in shifts:
        count += 1
        as_large += shift >= observed - margin
    p_value = as_large / count if observed > 0 else 1.0
    return Comparison(
        before=base,
        after=fmean(after),
        before_count=len(before),
        after_count=len(after),
        p_value=p_value,
        is_significant=p_value <= max(LEVEL, 1 / count),
    )


def _signed(differences: Sequence[float]) -> Iterator[float]:
    """Yield the mean for every choice of signs, the observed one first."""
    if 2 ** len(differences) <= _MOST_EXACT:
        for signs in itertools.product((1, -1), repeat=len(differences)):
            yield fmean(map(mul, signs, differences))
        return
    chance = random.Random(0)
    yield fmean(differences)
    for _ in range(_RESAMPLE_COUNT):
        yield fmean(value * chance.choice((1, -1)) for value in differences)


def _regrouped(before: Sequence[float], after: Sequence[float]) -> Iterator[float]:
    """Yield the difference of the means for every way to deal the numbers out."""
    pooled, count = [*after, *before], len(after)
    total, rest = math.fsum(pooled), len(before)

    def shift(chosen: Sequence[float]) -> float:
        part = math.fsum(chosen)
        return part / count - (total - part) / rest

    if math.comb(len(pooled), count) <= _MOST_EXACT:
        yield from map(shift, itertools.combinations(pooled, count))
        return
    chance = random.Random(0)
    yield shift(after)
    for _ in range(_RESAMPLE_COUNT):
        yield shift(chance.sample(pooled, count))

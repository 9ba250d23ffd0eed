"""Confidence intervals and effect sizes of a difference between two samples (extra ``stats``).

Owns the statistics; knows no frames. Invariant: the sign is that of ``b - a`` everywhere, and the same
samples and seed give the same interval. Samples are one-dimensional and hold no missing values; paired ones
are in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Interval", "Sample", "Statistic", "Uncertainty", "hedges_g", "rank_effect"]

Sample = np.ndarray[tuple[int], np.dtype[np.float64]]
Statistic = Literal["mean", "median"]

_NUMBERS_PER_BATCH = 4_000_000


class Interval(NamedTuple):
    """Both ends, NaN when there is none, and how they were found."""

    low: float
    high: float
    method: str


_TOO_FEW = Interval(math.nan, math.nan, "none: fewer than two rows")
_NO_SPREAD = Interval(math.nan, math.nan, "none: all the same")
# Differences that are equal but for rounding have no spread.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """How intervals are found.

    Attributes:
        statistic: What is compared.
        confidence: Share of the intervals that hold the true difference.
        resample_count: Resamples of the bootstrap.
        seed: Of the random numbers.
    """

    statistic: Statistic = "mean"
    confidence: float = 0.95
    resample_count: int = 9_999
    seed: int = 0

    def value(self, sample: Sample) -> float:
        """Return the statistic of one sample; NaN when it is empty."""
        return float(self._reduce(sample, axis=-1)) if len(sample) else math.nan

    def interval(self, a: Sample, b: Sample, *, is_paired: bool, is_rate: bool) -> Interval:
        """Return the interval of the difference that fits the samples.

        Args:
            a: What is compared with.
            b: What is compared.
            is_paired: Whether values in the same place belong together.
            is_rate: Whether all values are 0 or 1; matters for means only.
        """
        if min(len(a), len(b)) < 2:
            return _TOO_FEW
        if is_rate and self.statistic == "mean":
            return self._of_paired_rates(a, b) if is_paired else self._of_rates(a, b)
        return self._of_pairs(a, b) if is_paired else self._of_difference(a, b)

    def _of_difference(self, a: Sample, b: Sample) -> Interval:
        if _are_equal(a, a) and _are_equal(b, b):
            return _NO_SPREAD
        return self._welch(a, b) if self.statistic == "mean" else self._bootstrap((b, a))

    def _of_pairs(self, a: Sample, b: Sample) -> Interval:
        differences = b - a
        if _are_equal(differences, np.concatenate([a, b])):
            value = self.value(differences)
            return Interval(value, value, "all differences the same")
        if self.statistic == "median":
            return self._bootstrap((differences,))
        count = len(differences)
        error = math.sqrt(differences.var(ddof=1) / count)
        return self._student(float(differences.mean()), error, count - 1, "paired t")

    def _welch(self, a: Sample, b: Sample) -> Interval:
        of_a, of_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
        return self._student(float(b.mean() - a.mean()), math.sqrt(of_a + of_b), freedom, "Welch's t")

    def _student(self, center: float, error: float, freedom: float, method: str) -> Interval:
        from scipy.stats import t

        reach = float(t.ppf((1 + self.confidence) / 2, freedom)) * error
        return Interval(center - reach, center + reach, method)

    def _of_rates(self, a: Sample, b: Sample) -> Interval:
        """Return the interval of the difference of two rates of 0 and 1 (Newcombe 1998, method 10)."""
        rate_a, rate_b = float(a.mean()), float(b.mean())
        (low_a, high_a), (low_b, high_b) = self._wilson(a), self._wilson(b)
        low = rate_b - rate_a - math.hypot(rate_b - low_b, high_a - rate_a)
        high = rate_b - rate_a + math.hypot(high_b - rate_b, rate_a - low_a)
        return Interval(low, high, "Newcombe")

    def _of_paired_rates(self, a: Sample, b: Sample) -> Interval:
        """Return the interval of the difference of rates of pairs of 0 and 1 (Agresti and Min 2005)."""
        gained, lost, count = float(((b - a) > 0).sum()) + 0.5, float(((b - a) < 0).sum()) + 0.5, len(a) + 2
        variance = (gained + lost - (gained - lost) ** 2 / count) / count**2
        low, high, _ = self._student((gained - lost) / count, math.sqrt(variance), math.inf, "normal")
        return Interval(max(low, -1.0), min(high, 1.0), "Agresti-Min")

    def _wilson(self, sample: Sample) -> tuple[float, float]:
        from scipy.stats import binomtest

        found = binomtest(int(sample.sum()), len(sample)).proportion_ci(self.confidence, method="wilson")
        return float(found.low), float(found.high)

    def _bootstrap(self, samples: tuple[Sample, ...]) -> Interval:
        """Return the percentiles of resamples, for medians; the jackknife of BCa is not consistent there."""
        from scipy.stats import bootstrap

        interval = bootstrap(
            samples,
            self._difference,
            vectorized=True,
            n_resamples=self.resample_count,
            batch=max(1, _NUMBERS_PER_BATCH // max(map(len, samples))),
            confidence_level=self.confidence,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return Interval(float(interval.low), float(interval.high), "bootstrap, percentile")

    def _difference(self, first: Any, second: Any = None, *, axis: int = -1) -> Any:
        value = self._reduce(first, axis=axis)
        return value if second is None else value - self._reduce(second, axis=axis)

    def _reduce(self, values: Any, *, axis: int) -> Any:
        return np.mean(values, axis=axis) if self.statistic == "mean" else np.median(values, axis=axis)


def _are_equal(values: Sample, scale: Sample) -> bool:
    return float(np.ptp(values)) <= _ROUNDING * float(np.abs(scale).max())


def hedges_g(a: Sample, b: Sample) -> float:
    """Return the difference of the means in pooled standard deviations, corrected for small samples.

    ``J * (mean(b) - mean(a)) / s``, where ``s`` is the pooled standard deviation, ``J = gamma(m / 2) /
    (sqrt(m / 2) * gamma((m - 1) / 2))`` and ``m = n_a + n_b - 2`` (Hedges 1981). Of pairs it is Hedges' g_av
    (Lakens 2013), so that both kinds can be compared. NaN with fewer than two values or without spread.
    """
    freedom = len(a) + len(b) - 2
    if min(len(a), len(b)) < 2:
        return math.nan
    pooled = math.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / freedom)
    if pooled == 0:
        return math.nan
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * float(b.mean() - a.mean()) / pooled


def rank_effect(a: Sample, b: Sample, *, is_paired: bool) -> float:
    """Return how much more often ``b`` is above ``a`` than below, from -1 to 1.

    Independent: Cliff's delta, ``P(b > a) - P(b < a)`` over all combinations (Cliff 1993). Pairs: the matched
    rank-biserial correlation, the ranks of the positive differences minus those of the negative ones by all
    ranks, without differences of 0 (Kerby 2014); 0 when all are 0. NaN without values.
    """
    from scipy.stats import mannwhitneyu, rankdata

    if not min(len(a), len(b)):
        return math.nan
    if not is_paired:
        return float(2 * mannwhitneyu(b, a, method="asymptotic").statistic / (len(a) * len(b)) - 1)
    differences = (b - a)[b != a]
    if not len(differences):
        return 0.0
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())

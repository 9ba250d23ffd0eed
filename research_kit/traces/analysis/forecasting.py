"""What further days will cost if they are like those before.

Owns the expectation and its prediction interval; reads nothing. Invariant: functions are pure, and an
interval is given only where days scatter around one level, or around one level per day of the week.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from research_kit._notices import warn_user
from research_kit._optional import require
from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import FORECAST
from research_kit.traces.analysis.grouping import build_rows, require_columns
from research_kit.traces.counting import count_once
from research_kit.traces.query import to_utc

__all__ = ["forecast_cost", "predict_days"]

_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name", "start_time",
    "cost_usd", "input_tokens", "output_tokens", "total_tokens",
)  # fmt: skip
_WEEK = 7
_FEWEST_DAYS = 2 * _WEEK
_DAY = pd.Timedelta(days=1)
# A day of the week counts when chance alone would rarely (1 in 20) make them differ so much.
_RARE = 0.05
# Below, quantiles of Student's distribution say more about the formula than about the days.
_FEWEST_FREEDOM = 8.0
# What differs only by rounding does not differ.
_ROUNDING = 1e-18
_TOO_FEW = f"none: fewer than {_FEWEST_DAYS} whole days"
_WANDERS = "none: the daily cost wanders or has a trend"

_Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class _Spent(NamedTuple):
    """Cost per whole day, from the first day on, and the day after the last of them."""

    costs: _Numbers
    next_day: pd.Timestamp


class _Level(NamedTuple):
    """What a day costs: one mean for all days, or one for each day of the week.

    Attributes:
        groups: Which mean holds for which day of the week, counted from the first observed day: shape
            ``(7, group)``, of 0 and 1.
        means: One per group.
        counts: How many days each mean is made of.
        residuals: What each observed day cost beyond its mean.
    """

    groups: _Numbers
    means: _Numbers
    counts: _Numbers
    residuals: _Numbers

    @property
    def freedom(self) -> int:
        return len(self.residuals) - len(self.means)

    @property
    def squares(self) -> float:
        return float((self.residuals**2).sum())


class Prediction(NamedTuple):
    """Running sums of coming days, one value per day, and how the interval was found.

    ``low``, ``high`` and ``over_budget_share`` are NaN where there is no interval.
    """

    expected: _Numbers
    low: _Numbers
    high: _Numbers
    over_budget_share: _Numbers
    interval: str


def forecast_cost(
    frame: pd.DataFrame,
    days: int = 30,
    *,
    budget_usd: float | None = None,
    until: datetime | str | None = None,
    confidence: float = 0.9,
) -> pd.DataFrame:
    """Return one row per coming day: what will have been spent by its end, with a prediction interval.

    The expected cost is the mean cost of the whole days so far; where the days of the week clearly differ (an
    F test), the mean of each. The interval is that of sums of gamma-distributed days around this level: the
    ratio of coming to observed sums follows an F distribution, whose quantiles are widened as Student's
    are against the normal ones, for a variance that is itself estimated. In simulations with 14 to 60
    days of log-normal, weekly, and mostly idle costs 90 % intervals hold 87-93 % of the true sums
    (``python -m benchmarks.run coverage``).

    There is no interval, and a warning, below 14 whole days, and where the daily cost wanders or has a trend
    (rank correlations with the day before, and with time): such days do not tell what comes. The test sees
    half of the wandering costs after 14 days, and nearly all after 60; it takes one or two steady series of
    ten for a wandering one. ``attrs["interval"]`` says which. Source: `observations_df` (complete traces);
    costs count once, as in `cost_by`, and unknown ones are missing.

    Args:
        frame: One row per observation; days within it without any cost nothing.
        days: How many days to look ahead.
        budget_usd: With it, ``over_budget_share`` says how probable it is that it is exceeded.
        until: The moment up to which the frame is complete; None means its last observation. The day of that
            moment is not over, so it does not count and the forecast begins with it.
        confidence: Probability that the sum lies within the interval.

    Raises:
        ConfigError: When an argument cannot be used, the frame lacks a column, or holds less than two whole
            days.
        MissingExtraError: When scipy is not installed.
    """
    require("scipy", extra="stats", purpose="compute prediction intervals")
    require_columns(frame, _NEEDS, "forecast_cost")
    _check(days, confidence)
    spent = _spent(frame, until)
    found = predict_days(spent.costs, days, budget_usd=budget_usd, confidence=confidence)
    if found.interval.startswith("none"):
        warn_user(f"The forecast has no interval ({found.interval.removeprefix('none: ')}).")
    rows = pd.DataFrame(
        {
            "day": pd.date_range(spent.next_day, periods=days, freq="D"),
            "cost_usd": found.expected,
            "cost_low_usd": found.low,
            "cost_high_usd": found.high,
            "over_budget_share": found.over_budget_share,
        }
    )
    result = build_rows(FORECAST, rows)
    result.attrs["interval"] = found.interval
    return result


def predict_days(
    costs: _Numbers, days: int, *, budget_usd: float | None = None, confidence: float = 0.9
) -> Prediction:
    """Predict the running sums of the ``days`` after ``costs``, one value per day; see `forecast_cost`."""
    level = _level(costs)
    ahead = np.arange(len(costs), len(costs) + days) % _WEEK
    coming = np.eye(_WEEK)[ahead].cumsum(axis=0) @ level.groups  # days of each group, by the end of each day
    expected = coming @ level.means
    unknown = np.full(days, np.nan)
    reason = _TOO_FEW if len(costs) < _FEWEST_DAYS else _WANDERS if _wanders(level.residuals) else ""
    if reason:
        return Prediction(expected, unknown, unknown, unknown, reason)
    if level.squares <= _ROUNDING * float((costs**2).sum()):
        over = unknown if budget_usd is None else (expected > budget_usd).astype("float64")
        return Prediction(expected, expected, expected, over, "all days as expected")
    return _gamma_sums(level, coming, expected, budget_usd, confidence)


def _gamma_sums(
    level: _Level, coming: _Numbers, expected: _Numbers, budget_usd: float | None, confidence: float
) -> Prediction:
    from scipy.stats import f, norm, t

    variance, freedom = level.squares / level.freedom, _freedom(level)
    # Of a gamma distribution the shape is the squared mean by the variance, and F takes twice the shapes.
    of_sums = 2 * expected**2 / (coming.sum(axis=1) * variance)
    of_means = 2 * expected**2 / ((coming**2 / level.counts).sum(axis=1) * variance)
    tail = norm.cdf(t.ppf((1 + confidence) / 2, freedom))
    # Days of the week that never cost anything are expected to cost nothing, and have no shape.
    low, high = (np.nan_to_num(expected * f.ppf(share, of_sums, of_means)) for share in (1 - tail, tail))
    over = np.full(len(expected), np.nan)
    if budget_usd is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            below = f.cdf(budget_usd / expected, of_sums, of_means)
        over = np.nan_to_num(t.sf(norm.ppf(below), freedom))
    return Prediction(expected, low, high, over, "gamma sums")


def _freedom(level: _Level) -> float:
    """Return how many normal values would tell the variance as well as these skewed ones.

    The variance of a sample's variance grows with the kurtosis, which of a gamma distribution is
    ``3 + 6 / shape``.
    """
    mean, variance = float(level.means.mean()), level.squares / level.freedom
    return max(level.freedom / (1 + 3 * variance / mean**2), _FEWEST_FREEDOM)


def _level(costs: _Numbers) -> _Level:
    """Return one mean per day of the week where these clearly differ, else one for all."""
    same, weekly = _grouped(costs, np.ones((_WEEK, 1))), None
    if len(costs) >= _FEWEST_DAYS and same.squares:
        weekly = _grouped(costs, np.eye(_WEEK))
    return weekly if weekly is not None and _is_better(weekly, same) else same


def _grouped(costs: _Numbers, groups: _Numbers) -> _Level:
    of_days = groups[np.arange(len(costs)) % _WEEK]
    counts = of_days.sum(axis=0)
    means = (costs @ of_days) / counts
    return _Level(groups, means, counts, costs - of_days @ means)


def _is_better(weekly: _Level, same: _Level) -> bool:
    from scipy.stats import f

    gained = same.squares - weekly.squares
    if weekly.squares <= _ROUNDING * same.squares:
        return True
    ratio = (gained / (_WEEK - 1)) / (weekly.squares / weekly.freedom)
    return bool(f.sf(ratio, _WEEK - 1, weekly.freedom) < _RARE)


def _wanders(residuals: _Numbers) -> bool:
    """Whether days resemble the day before, or time, more than chance would have it."""
    from scipy.stats import norm, rankdata

    count = len(residuals)
    ranks = rankdata(residuals) - (count + 1) / 2
    squares = float((ranks**2).sum())
    if not squares:
        return False
    time = np.arange(count) - (count - 1) / 2
    with_before = float((ranks[1:] * ranks[:-1]).sum()) / squares + 1 / count
    with_time = float((ranks * time).sum()) / math.sqrt(squares * float((time**2).sum()))
    return bool(
        with_before * math.sqrt(count) > norm.isf(_RARE)
        or abs(with_time) * math.sqrt(count - 1) > norm.isf(_RARE / 2)
    )


def _check(days: int, confidence: float) -> None:
    if isinstance(days, bool) or not isinstance(days, int) or days < 1:
        raise ConfigError(f"days is {days!r}. Give a whole number from 1 on.")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}. Give a number between 0 and 1, such as 0.9.")


def _spent(frame: pd.DataFrame, until: datetime | str | None) -> _Spent:
    days = frame["start_time"].dt.floor("D")
    moment = to_utc(until, name="until")
    last = frame["start_time"].max() if moment is None else pd.Timestamp(moment)
    whole = days[days < last.floor("D")] if len(frame) else days
    if not len(whole) or (next_day := last.floor("D")) - whole.min() < 2 * _DAY:
        raise ConfigError(
            "A forecast needs observations of at least two whole days (UTC), and the day of the last one is "
            "not over. Read a longer time, or say with until= up to when the frame is complete."
        )
    costs = count_once(frame)["cost_usd"].groupby(days).sum()
    every_day = pd.date_range(whole.min(), next_day - _DAY, freq="D")
    return _Spent(costs.reindex(every_day, fill_value=0.0).to_numpy(dtype="float64"), next_day)

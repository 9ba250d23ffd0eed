"""What further days will cost if they are like those before.

Owns the simulation; reads nothing. Invariant: functions are pure, and the same frame and seed give the same
forecast.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import FORECAST
from research_kit.traces.analysis.grouping import build_rows, require_columns
from research_kit.traces.counting import count_once
from research_kit.traces.query import to_utc

__all__ = ["forecast_cost"]

_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name", "start_time",
    "cost_usd", "input_tokens", "output_tokens", "total_tokens",
)  # fmt: skip
_SIMULATION_COUNT = 2_000
_WEEK = 7
_DAY = pd.Timedelta(days=1)

_Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class _Spent(NamedTuple):
    """Cost per whole day, from the first day on, and the day after the last of them."""

    costs: _Numbers
    next_day: pd.Timestamp


def forecast_cost(
    frame: pd.DataFrame,
    days: int = 30,
    *,
    budget_usd: float | None = None,
    until: datetime | str | None = None,
    confidence: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row per coming day: what will have been spent by its end, with a prediction interval.

    The expected cost is the mean cost of the whole days so far times the days to come. The interval is found
    by simulation: each of 2,000 times the observed days are drawn anew with replacement, which stands for
    how little so few days tell, and the coming days are drawn from these; from two weeks of observations on
    in runs of seven days, so that weekends stay (block bootstrap, Kuensch 1989). The ends are the
    ``(1 - confidence) / 2`` quantiles of the running sums on either side. It knows no trend. Source:
    `observations_df` (complete traces); costs count once, as in `cost_by`, and unknown ones are missing.

    Args:
        frame: One row per observation; days within it without any cost nothing.
        days: How many days to look ahead.
        budget_usd: With it, ``over_budget_share`` says in which share of the simulations it is exceeded.
        until: The moment up to which the frame is complete; None means its last observation. The day of that
            moment is not over, so it does not count and the forecast begins with it.
        confidence: Share of the simulations that lie within the interval.
        seed: Of the random numbers.

    Raises:
        ConfigError: When an argument cannot be used, the frame lacks a column, or holds less than two whole
            days.
    """
    require_columns(frame, _NEEDS, "forecast_cost")
    _check(days, confidence)
    spent = _spent(frame, until)
    sums = _simulate(spent.costs, days, np.random.default_rng(seed)).cumsum(axis=1)
    low, high = np.quantile(sums, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    over = np.full(days, np.nan) if budget_usd is None else (sums > budget_usd).mean(axis=0)
    rows = pd.DataFrame(
        {
            "day": pd.date_range(spent.next_day, periods=days, freq="D"),
            "cost_usd": spent.costs.mean() * np.arange(1, days + 1),
            "cost_low_usd": low,
            "cost_high_usd": high,
            "over_budget_share": over,
        }
    )
    return build_rows(FORECAST, rows)


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


def _simulate(costs: _Numbers, days: int, rng: np.random.Generator) -> _Numbers:
    """Return simulated daily costs, one row per simulation.

    Days are drawn in runs, of which the first days are noted; after the last observed day comes the first.
    """
    length = _WEEK if len(costs) >= 2 * _WEEK else 1
    observed_count, coming_count = (-(-count // length) for count in (len(costs), days))
    observed = rng.integers(0, len(costs), size=(_SIMULATION_COUNT, observed_count))
    chosen = rng.integers(0, observed_count, size=(_SIMULATION_COUNT, coming_count))
    firsts = np.take_along_axis(observed, chosen, axis=1)
    places = (firsts[:, :, None] + np.arange(length)) % len(costs)
    simulated: _Numbers = costs[places.reshape(_SIMULATION_COUNT, -1)[:, :days]]
    return simulated

"""How often intervals hold what they are about, by simulation: of differences, and of forecasts.

Not a matter of speed: the goals are bounds of a share. ``python -m benchmarks.run coverage`` prints every
cell; the tests ask the same functions with fewer simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.measuring import Options, Row
from research_kit.traces.analysis.forecasting import predict_days
from research_kit.traces.analysis.intervals import Sample, Uncertainty

__all__ = ["COMPARISONS", "FORECASTS", "comparison_coverage", "forecast_coverage", "measure"]

_AHEAD_DAYS = 30
_Draw = Callable[[np.random.Generator, int], Sample]


class _Cell(NamedTuple):
    """Two populations, the rows drawn of each, and the difference of their means."""

    draw_a: _Draw
    draw_b: _Draw
    count_a: int
    count_b: int
    difference: float
    is_paired: bool = False


def _lognormal(sigma: float, factor: float = 1.0) -> _Draw:
    return lambda rng, count: factor * rng.lognormal(0.0, sigma, count)


def _normal(rng: np.random.Generator, count: int) -> Sample:
    return rng.normal(size=count)


def _lognormal_cell(sigma: float, count: int, factor: float = 1.0) -> _Cell:
    mean = float(np.exp(sigma**2 / 2))
    return _Cell(_lognormal(sigma), _lognormal(sigma, factor), count, count, (factor - 1) * mean)


COMPARISONS: Mapping[str, _Cell] = {
    **{f"lognormal 1, n={n}": _lognormal_cell(1.0, n) for n in (10, 20, 200)},
    **{f"lognormal 1, n={n}, +35 %": _lognormal_cell(1.0, n, 1.35) for n in (20, 200)},
    "lognormal 0.6, n=15": _lognormal_cell(0.6, 15),
    **{f"normal, n={n}": _Cell(_normal, _normal, n, n, 0.0) for n in (5, 8, 50)},
    **{f"pairs, n={n}": _Cell(_normal, _normal, n, n, 0.0, is_paired=True) for n in (8, 12, 200)},
}
FORECASTS = [(kind, days) for kind in ("lognormal", "weekend", "idle") for days in (14, 21, 30, 60)]


def comparison_coverage(cell: str, *, simulation_count: int, seed: int = 0) -> float:
    """Return the share of 95 % intervals that hold the difference of the populations."""
    rng, rules, given = np.random.default_rng(seed), Uncertainty(), COMPARISONS[cell]
    hits = 0
    for _ in range(simulation_count):
        a, b = given.draw_a(rng, given.count_a), given.draw_b(rng, given.count_b)
        interval = rules.interval(a, b, is_paired=given.is_paired, is_rate=False)
        hits += interval.low <= given.difference <= interval.high
    return hits / simulation_count


def forecast_coverage(
    kind: str, day_count: int, *, simulation_count: int, seed: int = 0
) -> tuple[float, float]:
    """Return the share of 90 % intervals that hold the cost of the next 30 days, and the share withheld."""
    rng = np.random.default_rng(seed)
    hits = withheld = 0
    for _ in range(simulation_count):
        costs = _daily_costs(rng, kind, day_count + _AHEAD_DAYS)
        found = predict_days(costs[:day_count], _AHEAD_DAYS)
        if np.isnan(found.low[-1]):
            withheld += 1
        else:
            hits += found.low[-1] <= costs[day_count:].sum() <= found.high[-1]
    return hits / max(simulation_count - withheld, 1), withheld / simulation_count


def _daily_costs(rng: np.random.Generator, kind: str, count: int) -> Sample:
    costs = rng.lognormal(0.0, 0.8, count)
    if kind == "weekend":
        return np.where((rng.integers(7) + np.arange(count)) % 7 < 5, costs, 0.1 * costs)
    if kind == "idle":
        return costs * (rng.random(count) < 0.3)
    if kind == "wandering":
        return np.exp(rng.normal(0.0, 0.3, count).cumsum())
    return costs


def _row(name: str, share: float, bounds: tuple[float, float] | None) -> Row:
    if bounds is None:
        return Row(name=f"{name}: holds {share:.1%}", value=share * 100, unit="%")
    low, high = bounds
    outside = max(low - share, share - high, 0.0)
    unit = f"points outside {low:.1%} to {high:.1%}"
    return Row(name=f"{name}: holds {share:.1%}", value=outside * 100, unit=unit, goal=0.0)


def measure(options: Options) -> list[Row]:
    """Return one row per cell: how many intervals hold the truth, and how far that is beyond the goal."""
    count = 500 if options.is_quick else 5_000
    rows = [
        _row(f"compare, 95 %: {cell}", comparison_coverage(cell, simulation_count=count), (0.935, 0.97))
        for cell in COMPARISONS
    ]
    for kind, days in [*FORECASTS, *(("wandering", days) for days in (14, 30, 60))]:
        share, withheld = forecast_coverage(kind, days, simulation_count=count // 5)
        bounds = (0.85, 0.95) if (kind, days) in FORECASTS else None
        rows.append(_row(f"forecast, 90 %: {kind}, {days} days ({withheld:.0%} without)", share, bounds))
    return rows

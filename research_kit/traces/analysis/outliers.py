"""Values that stand out.

Owns the rule; reads nothing. Invariant: functions are pure, and the rule is robust: a few extreme values do
not move what they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import ANOMALIES
from research_kit.traces.analysis.grouping import (
    build_result,
    group_rows,
    key_names,
    read_keys,
    require_columns,
    with_groups,
)

__all__ = ["anomalies"]

_METRICS = ("latency_s", "time_to_first_token_s", "cost_usd", "input_tokens", "output_tokens")
_SHOWN = ("observation_id", "trace_id", "session_id", "name", "start_time")
# Of normally distributed values the median distance from the median is 0.6745 standard deviations, and the
# mean distance 0.7979; their inverses make both comparable with one.
_MAD_UNIT = 1.482602218505602
_MEAN_UNIT = 1.2533141373155001


def anomalies(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    by: str | Sequence[str] | None = "model",
    threshold: float = 3.5,
    scale: Literal["linear", "log"] = "linear",
    min_count: int = 8,
) -> pd.DataFrame:
    """Return one row per value that is far from the median of its group, the farthest first.

    ``robust_z = (value - median) / (1.4826 * MAD)``, where MAD is the median of the absolute distances from
    the median; values with ``|robust_z| > threshold`` are returned. Where more than half of a group is one
    value MAD is 0, and 1.2533 times the mean absolute distance takes its place. Method: Iglewicz and
    Hoaglin, How to Detect and Handle Outliers, 1993, whose threshold is 3.5. Latencies and costs have long
    tails: ``scale="log"`` compares their logarithms (of values above 0), so only what is far for such a
    distribution is found. Source: `generations_df` or any other frame.

    Args:
        frame: Any frame with the columns.
        metrics: Columns to look at; None means those of ``latency_s``, ``time_to_first_token_s``,
            ``cost_usd``, ``input_tokens`` and ``output_tokens`` that the frame has.
        by: Groups that are compared within themselves, as in `cost_by`; None for one group.
        threshold: How far is too far, in robust standard deviations.
        scale: ``"linear"`` or ``"log"``.
        min_count: Groups with fewer values are left out, since they say little about what is usual.

    Raises:
        ConfigError: When an argument cannot be used, or the frame lacks a column.
    """
    keys = read_keys(by) if by is not None else []
    chosen = [name for name in _METRICS if name in frame.columns] if metrics is None else list(metrics)
    require_columns(frame, chosen, "anomalies")
    if scale not in ("linear", "log"):
        raise ConfigError(f"scale is {scale!r}. Use 'linear' or 'log'.")
    if not threshold > 0:
        raise ConfigError(f"threshold is {threshold!r}. Give a number above 0; 3.5 is usual.")
    shown = frame.reindex(columns=list(_SHOWN))
    found = [
        judged[judged["robust_z"].abs() > threshold].assign(metric=name)
        for name in chosen
        for judged in [_judged(with_groups(_values(frame, name, scale), frame, keys, "anomalies"), keys)]
    ]
    found = [some[some["group_count"] >= min_count] for some in found]
    columns = [*key_names(keys), *(column.name for column in ANOMALIES)]
    if not any(len(some) for some in found):
        return build_result(keys, ANOMALIES, pd.DataFrame(columns=columns))
    rows = pd.concat([some for some in found if len(some)])
    shown = shown.set_axis(range(len(shown)))
    own = [name for name in _SHOWN if name not in key_names(keys)]
    joined = rows.join(shown[own], on="row")
    return build_result(
        keys, ANOMALIES, joined.sort_values("robust_z", key=abs, ascending=False, kind="stable")
    )


def _values(frame: pd.DataFrame, metric: str, scale: str) -> pd.DataFrame:
    values = frame[metric].astype("float64")
    compared = values if scale == "linear" else np.log(values.where(values > 0))
    return pd.DataFrame({"row": range(len(frame)), "value": values, "compared": compared}, index=frame.index)


def _judged(values: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the known values with the median and the size of their group, and how far away they are."""
    known = values[values["compared"].notna()].reset_index(drop=True)
    groups = group_rows(known, keys)
    away = known["compared"] - groups["compared"].transform("median")
    distances = group_rows(known.assign(distance=away.abs()), keys)["distance"]
    mad, mean = distances.transform("median") * _MAD_UNIT, distances.transform("mean") * _MEAN_UNIT
    unit = mad.where(mad > 0, mean)
    return known.assign(
        median=groups["value"].transform("median"),
        group_count=groups["compared"].transform("size"),
        robust_z=away / unit.where(unit > 0),
    )

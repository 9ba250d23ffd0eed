"""Two sessions, two runs or any two frames, compared column by column.

Owns which columns are compared and which rows are pairs; `intervals` has the statistics. Invariant: the
frames that come in are not changed, and every difference is ``b - a``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack, get_args

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from research_kit._notices import warn_user
from research_kit._optional import require
from research_kit.errors import ConfigError
from research_kit.traces.analysis.columns import COMPARISON
from research_kit.traces.analysis.grouping import build_rows, require_columns
from research_kit.traces.analysis.intervals import Sample, Statistic, Uncertainty, hedges_g, rank_effect
from research_kit.traces.counting import count_once
from research_kit.traces.reader import TraceReader

__all__ = ["CompareOptions", "Places", "compare", "find_pairs"]

Places = np.ndarray[tuple[int], np.dtype[np.integer[Any]]]

_METRICS = (
    "latency_s", "time_to_first_token_s", "tokens_per_second", "cost_usd", "input_tokens", "output_tokens",
    "cached_tokens", "reasoning_tokens", "total_tokens", "generation_count", "tool_call_count",
    "observation_count", "error_count", "is_error",
)  # fmt: skip
_SCORE = "score_"
_MATCHING = ("question", "source_hash")
_OBSERVATION = {"observation_id", "trace_id", "parent_observation_id", "type", "name", "total_tokens"}
_COUNTED = ("cost_usd", "input_tokens", "output_tokens", "total_tokens")


class CompareOptions(TypedDict, total=False):
    """Further options of `compare`.

    Attributes:
        statistic: ``"mean"`` (default) or ``"median"``.
        confidence: Of the intervals; 0.95 by default.
        resample_count: Resamples of the bootstrap, for medians; 9,999 by default.
        seed: Of its random numbers; 0 by default, so that results repeat.
        reader: Where sessions are read from; None means where the traces of this process go.
    """

    statistic: Statistic
    confidence: float
    resample_count: int
    seed: int
    reader: TraceReader | None


class _Rows(NamedTuple):
    """Both frames; when paired, with matching rows in the same places."""

    a: pd.DataFrame
    b: pd.DataFrame
    is_paired: bool
    unmatched_count: int = 0


def compare(
    a: pd.DataFrame | str,
    b: pd.DataFrame | str,
    metrics: Sequence[str] | None = None,
    *,
    on: str | Sequence[str] | None = None,
    paired: bool | None = None,
    **options: Unpack[CompareOptions],
) -> pd.DataFrame:
    """Return one row per metric: the values of both, their difference ``b - a``, how sure it is, how large.

    A row of a frame is one case, and cases are taken as independent of one another; so compare messages,
    traces or cells, not the observations inside them. Two session ids compare their messages, or where one
    has none their cells, else their traces, with the scores these were given.

    Messages that ask the same, and cells of the same source, are pairs: where at least half of the smaller
    frame matches, the differences within pairs are judged, which sees smaller differences; rows without a
    match are left out with a warning, and counted in ``attrs["unmatched_count"]``. Intervals of means:
    Welch's and the paired t; of medians the percentiles of the bootstrap; of columns that are true or false
    Newcombe's (1998), of pairs of these Agresti and Min's (2005). In simulations of log-normal and normal
    values of 5 to 200 rows 95 % intervals hold 95-97.5 % of the true differences (``python -m benchmarks.run
    coverage``); fewer where the groups are skewed and of very unequal sizes. Effect sizes: Hedges' g, and
    Cliff's delta or of pairs the rank-biserial correlation. With many metrics some intervals leave out 0 by
    chance: of twenty at 0.95 about one. Missing values are left out, and the counts say how many are
    there; of an observations frame costs and tokens count once. Source: any frames; the units are those of
    the metrics.

    Args:
        a: A frame, or the id of a session or run; what is compared with.
        b: A frame, or the id of a session or run.
        metrics: Columns; None means the usual ones that both frames have, with their numeric scores.
        on: Columns whose values make a pair, such as ``"question"``; repeated values pair in their order.
        paired: True pairs the rows that match, however few; False pairs none; None pairs when at least half
            of the smaller frame matches.
        **options: `CompareOptions`: ``statistic``, ``confidence``, ``resample_count``, ``seed``, ``reader``.

    Raises:
        ConfigError: When an argument cannot be used, or a frame lacks a column.
        BackendError: When a session cannot be read.
        MissingExtraError: When scipy is not installed.
    """
    require("scipy", extra="stats", purpose="compute confidence intervals")
    rules = _rules(options)
    frame_a, frame_b = _frames(a, b, options.get("reader"))
    chosen = _metrics(frame_a, frame_b, metrics)
    rows = _match(frame_a, frame_b, on, paired)
    found = [_compared(name, rows, rules) for name in chosen]
    result = build_rows(COMPARISON, pd.DataFrame(found, columns=[column.name for column in COMPARISON]))
    result.attrs.update(
        statistic=rules.statistic, confidence=rules.confidence, unmatched_count=rows.unmatched_count
    )
    return result


def _rules(options: Mapping[str, Any]) -> Uncertainty:
    unknown = sorted(options.keys() - CompareOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(CompareOptions.__annotations__)
        raise ConfigError(f"compare has no argument {unknown[0]!r}. Its options are: {known}.")
    rules = Uncertainty(**{name: value for name, value in options.items() if name != "reader"})
    if rules.statistic not in get_args(Statistic):
        raise ConfigError(f"statistic is {rules.statistic!r}. Use 'mean' or 'median'.")
    if not 0 < rules.confidence < 1:
        raise ConfigError(f"confidence is {rules.confidence!r}. Give a number between 0 and 1, such as 0.95.")
    if rules.resample_count < 100:
        raise ConfigError(f"resample_count is {rules.resample_count!r}. Give at least 100.")
    return rules


def _frames(
    a: pd.DataFrame | str, b: pd.DataFrame | str, reader: TraceReader | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what is compared; a session beside a frame is read as what the frame is."""
    for given in (a, b):
        if not isinstance(given, str | pd.DataFrame):
            raise ConfigError(
                f"compare was given a {type(given).__name__}. Give two pandas frames or two session ids."
            )
    if isinstance(a, str) and isinstance(b, str):
        return _read_sessions(a, b, reader)
    if isinstance(a, str) or isinstance(b, str):
        raise ConfigError("compare was given a session id and a frame. Give two of the same kind.")
    return a, b


def _read_sessions(a: str, b: str, reader: TraceReader | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    from research_kit.traces.reads import cells_df, messages_df, traces_df

    for read in (messages_df, cells_df):
        frame_a, frame_b = (read(session_id, reader=reader, scores=True) for session_id in (a, b))
        if len(frame_a) and len(frame_b):
            return frame_a, frame_b
    return traces_df(a, reader=reader, scores=True), traces_df(b, reader=reader, scores=True)


def _metrics(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    both = [name for name in a.columns if name in b.columns and _is_number(a[name]) and _is_number(b[name])]
    if metrics is None:
        scores = [name for name in both if str(name).startswith(_SCORE)]
        usual = [*(name for name in _METRICS if name in both), *scores]
        return usual or both
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for frame in (a, b):
        require_columns(frame, chosen, "compare")
    wrong = [name for name in chosen if name not in both]
    if wrong:
        raise ConfigError(
            f"compare cannot compare {wrong[0]!r}, which is {a[wrong[0]].dtype} and {b[wrong[0]].dtype}. "
            "Choose columns of numbers, or true and false."
        )
    return chosen


def _is_number(values: pd.Series[Any]) -> bool:
    return is_numeric_dtype(values.dtype) or is_bool_dtype(values.dtype)


def _match(a: pd.DataFrame, b: pd.DataFrame, on: str | Sequence[str] | None, paired: bool | None) -> _Rows:
    """Return both frames, row beside row when they are pairs."""
    independent = _Rows(_counted(a), _counted(b), False)
    pairs = find_pairs(a, b, on, paired)
    if pairs is None:
        return independent
    rows_a, rows_b = pairs
    left_out = len(a) + len(b) - 2 * len(rows_a)
    if left_out:
        warn_user(
            f"{left_out} rows of both frames match no other and are left out of the comparison of "
            f"{len(rows_a)} pairs. paired=False compares all rows."
        )
    return _Rows(independent.a.iloc[rows_a], independent.b.iloc[rows_b], True, left_out)


def find_pairs(
    a: pd.DataFrame, b: pd.DataFrame, on: str | Sequence[str] | None = None, paired: bool | None = None
) -> tuple[Places, Places] | None:
    """Return the places of the rows of ``a`` and ``b`` that are pairs; None when the rows are independent.

    Args:
        a: One frame.
        b: The other frame.
        on: As for `compare`.
        paired: As for `compare`.

    Raises:
        ConfigError: When pairs are asked for and there are less than two.
    """
    keys = None if paired is False else _keys(a, b, on)
    if keys is None:
        if paired:
            raise ConfigError(
                "paired=True needs to know which rows match, and the frames have no questions or sources in "
                "common. Say it with on=, the columns whose values make a pair."
            )
        return None
    places_a, places_b = _numbered(a, keys), _numbered(b, keys)
    common = places_a.index.intersection(places_b.index)
    is_asked = paired is not None or on is not None
    if not is_asked and len(common) < max(2, min(len(a), len(b)) / 2):
        return None
    if len(common) < 2:
        raise ConfigError(
            f"Only {len(common)} rows match on {', '.join(keys)}, and pairs need at least two. "
            "Use paired=False, or other columns with on=."
        )
    return places_a[common].to_numpy(), places_b[common].to_numpy()


def _keys(a: pd.DataFrame, b: pd.DataFrame, on: str | Sequence[str] | None) -> list[str] | None:
    if on is not None:
        named = [on] if isinstance(on, str) else list(on)
        for frame in (a, b):
            require_columns(frame, named, "compare")
        return named
    for name in _MATCHING:
        if all(name in frame.columns and frame[name].notna().any() for frame in (a, b)):
            return [name]
    return None


def _numbered(frame: pd.DataFrame, keys: Sequence[str]) -> pd.Series[int]:
    """Return the places of rows by their keys and how often these came before; unknown keys match none."""
    texts = frame[list(keys)].astype("string").reset_index(drop=True).dropna()
    numbers = texts.groupby(list(keys), sort=False).cumcount()
    index = pd.MultiIndex.from_arrays([*(texts[key] for key in keys), numbers])
    return pd.Series(texts.index, index=index)


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame; of one of observations with costs and tokens that count once."""
    if not (_OBSERVATION | set(_COUNTED)) <= set(frame.columns):
        return frame
    counted = count_once(frame)
    return frame.assign(**{name: counted[name] for name in _COUNTED})


def _compared(metric: str, rows: _Rows, rules: Uncertainty) -> dict[str, Any]:
    """Return one row of the result."""
    a, b = _numbers(rows.a[metric]), _numbers(rows.b[metric])
    if rows.is_paired:
        is_known = ~(np.isnan(a) | np.isnan(b))
        a, b = a[is_known], b[is_known]
    else:
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    difference = rules.value(b - a) if rows.is_paired else rules.value(b) - rules.value(a)
    value_a = rules.value(a)
    is_rate = _is_rate(metric, rows, a, b)
    interval = rules.interval(a, b, is_paired=rows.is_paired, is_rate=is_rate)
    return {
        "metric": metric,
        "is_paired": rows.is_paired,
        "count_a": len(a),
        "count_b": len(b),
        "value_a": value_a,
        "value_b": rules.value(b),
        "difference": difference,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "relative_difference": difference / abs(value_a) if value_a and not is_rate else float("nan"),
        "hedges_g": hedges_g(a, b),
        "rank_effect": rank_effect(a, b, is_paired=rows.is_paired),
        "interval": interval.method,
        "is_rate": is_rate,
    }


def _numbers(values: pd.Series[Any]) -> Sample:
    return np.asarray(values.astype("float64"), dtype=np.float64)


def _is_rate(metric: str, rows: _Rows, a: Any, b: Any) -> bool:
    """Whether the values are answers of yes or no: truth values, or scores of 0 and 1."""
    if is_bool_dtype(rows.a[metric].dtype) and is_bool_dtype(rows.b[metric].dtype):
        return True
    return metric.startswith(_SCORE) and bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all())

"""What was spent, and what caches saved.

Owns the formulas; reads nothing. Invariant: functions are pure, and what counts is decided in
`research_kit.counting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import pandas as pd

from research_kit.traces.analysis.columns import CACHE_SAVINGS, COSTS
from research_kit.traces.analysis.engines import Engine, Where, frame_or_none
from research_kit.traces.analysis.grouping import (
    build_result,
    group_rows,
    key_names,
    read_keys,
    require_columns,
    with_groups,
)
from research_kit.traces.counting import count_once

__all__ = ["cache_savings", "cost_by"]

_COST_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name",
    "cost_usd", "input_tokens", "output_tokens", "total_tokens",
)  # fmt: skip
_SAVING_NEEDS = (
    *_COST_NEEDS, "cached_tokens", "cached_cost_usd", "input_cost_usd",
    "input_usd_per_token", "output_usd_per_token", "is_cache_hit",
)  # fmt: skip


def cost_by(
    frame: pd.DataFrame | None = None,
    by: str | Sequence[str] = "model",
    *,
    engine: Engine = "frame",
    **where: Unpack[Where],
) -> pd.DataFrame:
    """Return costs and tokens per group, most expensive first.

    One row per group in which an LM was called or anything cost something. What repeats what is inside it, as
    an agent that carries the cost of its calls, is not added again (docs/counting.md); tokens likewise.
    Source: `observations_df` (complete traces); dollars as the server or
    the client priced them.

    ``engine="server"`` has the metrics API add up instead, so that nothing is downloaded: all generations and
    embeddings, since the server does not see which of them are inside one another; at most 1,000 groups, the
    most expensive ones.

    Args:
        frame: One row per observation, as from `observations_df`; None with ``engine="server"``.
        by: ``model``, ``user``, ``session``, ``trace``, ``name``, ``type``, ``environment``, ``tag`` (of
            several tags in each), ``tool`` (the nearest tool call around it), ``cell`` or ``day`` (UTC);
            several as a list. The server knows no ``tool`` and no ``cell``.
        engine: ``"frame"`` or ``"server"``.
        **where: `Where`, with ``engine="server"``: ``session_id``, ``start_time``, ``end_time``, ``type``,
            ``reader``.

    Raises:
        ConfigError: When an argument cannot be used, or the frame lacks a column.
        BackendError: When the server cannot be read.
    """
    keys = read_keys(by)
    given = frame_or_none(frame, engine, where, "cost_by")
    if given is None:
        from research_kit.traces.analysis.server import cost_on_server

        return build_result(keys, COSTS, _ordered(cost_on_server(keys, where), keys))
    require_columns(given, _COST_NEEDS, "cost_by")
    counted = with_groups(count_once(given), given, keys, "cost_by")
    measures = ["cost_usd", "input_tokens", "output_tokens", "total_tokens"]
    counts = counted["is_call"] | counted[measures].notna().any(axis="columns")
    groups = group_rows(counted[counts], keys)
    sums = groups[["cost_usd", "input_tokens", "output_tokens"]].sum(min_count=1)
    sums["call_count"] = groups["is_call"].sum()
    sums["unpriced_count"] = groups["is_unpriced"].sum()
    return build_result(keys, COSTS, _ordered(sums.reset_index(), keys))


def cache_savings(frame: pd.DataFrame, by: str | Sequence[str] = "model") -> pd.DataFrame:
    """Return what caches saved per group, in US dollars; the largest saving first.

    ``prompt_saved_usd`` is the provider's prompt cache: over calls with cached tokens, the sum of
    ``input_tokens * input_usd_per_token + output_tokens * output_usd_per_token - cost_usd``, which is the
    price without a cache minus what was paid, the surcharge for writing the cache included. Where the server
    knows no price of the model, the price of an uncached input token comes from the parts of the same call:
    ``cached_tokens * (input_cost_usd - cached_cost_usd) / (input_tokens - cached_tokens) - cached_cost_usd``.
    ``hit_saved_usd`` is an estimate: the calls that DSPy's cache answered times the mean known cost of the
    group's other calls. Source: `observations_df`; prices are those of the server's table.

    Args:
        frame: One row per observation, as from `observations_df`.
        by: As in `cost_by`.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
    """
    keys = read_keys(by)
    require_columns(frame, _SAVING_NEEDS, "cache_savings")
    calls = with_groups(_calls(frame), frame, keys, "cache_savings")
    groups = group_rows(calls[calls["is_call"]], keys)
    sums = groups[["input_tokens", "cached_tokens", "cost_usd", "prompt_saved_usd"]].sum(min_count=1)
    sums["call_count"] = groups.size()
    sums["hit_count"] = groups["is_hit"].sum()
    sums["unknown_count"] = groups["is_unknown"].sum()
    sums["cached_share"] = _share(sums["cached_tokens"], sums["input_tokens"])
    sums["hit_saved_usd"] = (sums["hit_count"] * groups["paid_usd"].mean()).where(sums["hit_count"] > 0)
    saved = sums[["prompt_saved_usd", "hit_saved_usd"]].sum(axis="columns", min_count=1)
    ordered = sums.assign(saved=saved).sort_values("saved", ascending=False, kind="stable")
    return build_result(keys, CACHE_SAVINGS, ordered.reset_index())


def _calls(frame: pd.DataFrame) -> pd.DataFrame:
    """Return of each LM call what it used, paid and saved."""
    numbers = frame[["input_tokens", "output_tokens", "cached_tokens", "cost_usd"]].astype("float64")
    is_hit = frame["is_cache_hit"].fillna(False).astype("bool")
    is_cached = numbers["cached_tokens"].fillna(0) > 0
    saved = _saved_by_price(frame, numbers).fillna(_saved_by_parts(frame, numbers)).where(is_cached)
    return pd.DataFrame(
        {
            "is_call": count_once(frame)["is_call"],
            "is_hit": is_hit,
            "is_unknown": is_cached & saved.isna(),
            "input_tokens": frame["input_tokens"],
            "cached_tokens": frame["cached_tokens"],
            "cost_usd": frame["cost_usd"],
            "prompt_saved_usd": saved,
            "paid_usd": numbers["cost_usd"].where(~is_hit),
        }
    )


def _saved_by_price(frame: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series[float]:
    output_cost = (numbers["output_tokens"] * frame["output_usd_per_token"]).mask(
        numbers["output_tokens"].fillna(0) == 0, 0.0
    )
    uncached = numbers["input_tokens"] * frame["input_usd_per_token"] + output_cost
    return uncached - numbers["cost_usd"]


def _saved_by_parts(frame: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series[float]:
    plain_tokens = numbers["input_tokens"] - numbers["cached_tokens"]
    price = (frame["input_cost_usd"] - frame["cached_cost_usd"]) / plain_tokens.where(plain_tokens > 0)
    return numbers["cached_tokens"] * price - frame["cached_cost_usd"]


def _share(part: pd.Series[float], whole: pd.Series[float]) -> pd.Series[float]:
    of = whole.astype("float64")
    return part.astype("float64") / of.where(of > 0)


def _ordered(sums: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    by_key = sums.sort_values(key_names(keys), kind="stable")
    return by_key.sort_values("cost_usd", ascending=False, kind="stable", na_position="last")

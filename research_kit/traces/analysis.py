"""Costs and latencies of observations, grouped.

Owns the formulas; reads nothing and plots nothing. Invariant: functions are pure: the frame that comes in is
not changed, and an empty one gives an empty result with the same columns and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.counting import count_once, name_tools
from research_kit.traces.frames import build_frame
from research_kit.traces.schema import COSTS, LATENCIES, Column, Schema, own

__all__ = ["cost_by", "group_values", "latency_summary", "require_columns"]

_LATENCY_QUANTILES = {
    "latency_p50_s": 0.5,
    "latency_p90_s": 0.9,
    "latency_p95_s": 0.95,
    "latency_p99_s": 0.99,
}
_COST_NEEDS = (
    "trace_id", "observation_id", "parent_observation_id", "type", "name",
    "cost_usd", "input_tokens", "output_tokens", "total_tokens",
)  # fmt: skip


def _day(frame: pd.DataFrame) -> pd.Series[Any]:
    days: pd.Series[Any] = frame["start_time"].dt.floor("D")
    return days


def _cell(frame: pd.DataFrame) -> pd.Series[Any]:
    number = "[" + frame["execution_count"].astype("string") + "]"
    return frame["cell_id"].fillna(number)


def _tool(frame: pd.DataFrame) -> pd.Series[Any]:
    return pd.Series(name_tools(frame), index=frame.index, dtype="string")


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series[Any]]:
    return lambda frame: frame[name]


_KEYS: Mapping[str, tuple[Column, Callable[[pd.DataFrame], pd.Series[Any]]]] = {
    "model": (own("model", "string", "Model."), _column("model")),
    "user": (own("user_id", "string", "User."), _column("user_id")),
    "session": (own("session_id", "string", "Session."), _column("session_id")),
    "trace": (own("trace_id", "string", "Trace."), _column("trace_id")),
    "name": (own("name", "string", "Name of the observation."), _column("name")),
    "type": (own("type", "string", "Type of the observation."), _column("type")),
    "environment": (own("environment", "string", "Environment."), _column("environment")),
    "tool": (own("tool_name", "string", "Tool call that it happened in."), _tool),
    "cell": (own("cell_id", "string", "Notebook cell; `[n]` where the cell has no id."), _cell),
    "day": (own("day", "datetime64[ns, UTC]", "Day, in UTC."), _day),
}


def cost_by(frame: pd.DataFrame, by: str | Sequence[str] = "model") -> pd.DataFrame:
    """Return costs and tokens per group, most expensive first.

    One row per group in which an LM was called or anything cost something. Of observations inside one
    another only the innermost that carries a cost counts, so a wrapper that repeats the cost of its calls is
    not added again; tokens likewise. Source: `observations_df` (complete traces); dollars as the server or
    the client priced them.

    Args:
        frame: One row per observation, as from `observations_df`.
        by: ``model``, ``user``, ``session``, ``trace``, ``name``, ``type``, ``environment``, ``tool`` (the
            nearest tool call around it), ``cell`` or ``day`` (UTC); several as a list.

    Raises:
        ConfigError: When ``by`` is none of these, or the frame lacks a column.
    """
    keys = _keys(by)
    require_columns(frame, _COST_NEEDS, "cost_by")
    counted = count_once(frame).assign(**_key_columns(frame, keys, "cost_by"))
    counts = counted["is_call"] | counted["cost_usd"].notna() | counted["total_tokens"].notna()
    groups = counted[counts].groupby(_key_names(keys), dropna=False, sort=True)
    sums = groups[["cost_usd", "input_tokens", "output_tokens"]].sum(min_count=1)
    sums["call_count"] = groups["is_call"].sum()
    sums["unpriced_count"] = groups["is_unpriced"].sum()
    ordered = sums.sort_values("cost_usd", ascending=False, kind="stable", na_position="last").reset_index()
    return _build(keys, COSTS, ordered)


def latency_summary(frame: pd.DataFrame, by: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Return percentiles of latency and time to first token, and tokens per second; one row per group.

    All in seconds. Percentiles interpolate linearly between the neighbours of rank ``p * (n - 1)``; rows
    without a value are left out of that value. ``output_tokens_per_s`` is the sum of output tokens by the sum
    of ``latency_s`` over rows that have both. Pick the rows before: the latency of an agent contains that of
    its calls. Source: `observations_df`, `generations_df`, `traces_df` or `messages_df`.

    Args:
        frame: Any frame with a column ``latency_s``; values whose columns it lacks are NA.
        by: None for one row over everything, else one or several of the groups of `cost_by`.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
    """
    keys = _keys(by) if by is not None else []
    require_columns(frame, ("latency_s",), "latency_summary")
    measured = _measured(frame).assign(**_key_columns(frame, keys, "latency_summary"))
    measured = measured[measured["latency_s"].notna()]
    everything = pd.Series(0, index=measured.index)
    groups = measured.groupby(_key_names(keys) if keys else everything, dropna=False, sort=True)
    summary = pd.DataFrame({"count": groups.size(), "latency_mean_s": groups["latency_s"].mean()})
    for name, share in _LATENCY_QUANTILES.items():
        summary[name] = groups["latency_s"].quantile(share)
    for name, share in (("time_to_first_token_p50_s", 0.5), ("time_to_first_token_p95_s", 0.95)):
        summary[name] = groups["time_to_first_token_s"].quantile(share)
    summary["output_tokens_per_s"] = groups["tokens"].sum(min_count=1) / groups["token_time_s"].sum(
        min_count=1
    )
    return _build(keys, LATENCIES, summary.reset_index())


def _measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers that `latency_summary` uses; those that the frame lacks are missing values."""
    missing = pd.Series(float("nan"), index=frame.index)
    tokens = frame.get("output_tokens", missing).astype("float64")
    has_rate = tokens.notna() & (frame["latency_s"] > 0)
    return pd.DataFrame(
        {
            "latency_s": frame["latency_s"],
            "time_to_first_token_s": frame.get("time_to_first_token_s", missing),
            "tokens": tokens.where(has_rate),
            "token_time_s": frame["latency_s"].where(has_rate),
        }
    )


def _keys(by: str | Sequence[str]) -> list[str]:
    keys = [by] if isinstance(by, str) else list(by)
    unknown = [key for key in keys if key not in _KEYS]
    if unknown or not keys:
        raise ConfigError(
            f"Cannot group by {unknown[0] if unknown else by!r}. Use one or several of: {', '.join(_KEYS)}."
        )
    return list(dict.fromkeys(keys))


def _key_names(keys: Sequence[str]) -> list[str]:
    return [_KEYS[key][0].name for key in keys]


def group_values(frame: pd.DataFrame, by: str, purpose: str) -> pd.Series[Any]:
    """Return for each row the group that it belongs to.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks the column it needs.
    """
    (values,) = _key_columns(frame, _keys(by), purpose).values()
    return values


def _key_columns(frame: pd.DataFrame, keys: Sequence[str], purpose: str) -> dict[str, pd.Series[Any]]:
    try:
        return {_KEYS[key][0].name: _KEYS[key][1](frame) for key in keys}
    except KeyError as error:
        raise _lacking(frame, str(error.args[0]), purpose) from error


def require_columns(frame: pd.DataFrame, needed: Sequence[str], purpose: str) -> None:
    """Refuse a frame without the columns that ``purpose`` needs.

    Raises:
        ConfigError: When one is missing.
    """
    for name in needed:
        if name not in frame.columns:
            raise _lacking(frame, name, purpose)


def _lacking(frame: pd.DataFrame, name: str, purpose: str) -> ConfigError:
    found = ", ".join(map(str, frame.columns[:8]))
    return ConfigError(
        f"{purpose} needs the column {name!r}, and the frame has none (it begins with: {found}). "
        "Give it a frame from observations_df()."
    )


def _build(keys: Sequence[str], columns: Schema, groups: pd.DataFrame) -> pd.DataFrame:
    schema = (*(_KEYS[key][0] for key in keys), *columns)
    names = [column.name for column in schema]
    return build_frame(schema, groups[names].to_dict("records"))  # type: ignore[arg-type]

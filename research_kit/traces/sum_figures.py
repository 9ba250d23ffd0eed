"""Figures of sums and of comparisons; imported when matplotlib is there.

Owns what is drawn where; paper and ink are in `canvas`, what counts once in `counting`. Invariant: a value
that is not known is left out and counted in the title, never drawn as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research_kit._words import dollars_text
from research_kit.errors import ConfigError
from research_kit.traces.analysis import group_values, require_columns
from research_kit.traces.analysis.comparing import Places, find_pairs
from research_kit.traces.canvas import (
    ERROR_COLOR,
    GRID_COLOR,
    INK,
    INPUT_COLOR,
    OTHER_COLOR,
    OUTPUT_COLOR,
    PALETTE,
    canvas,
    duration,
    nothing,
    short,
    title,
)
from research_kit.traces.counting import count_once
from research_kit.traces.rollup import roll_up_messages, roll_up_traces

__all__ = ["draw_comparison", "draw_cost", "draw_tokens_by"]

_OTHERS = "others"
_NONE = "(none)"
_TREE = ("trace_id", "observation_id", "parent_observation_id", "type")
# What a panel is called, its unit, and how its numbers are written.
_MEASURES: Mapping[str, tuple[str, str, Any]] = {
    "latency_s": ("latency", "seconds", duration),
    "total_tokens": ("tokens", "input and output tokens", lambda value: f"{value:,.0f}"),
    "cost_usd": ("cost", "US dollars", dollars_text),
}


def draw_cost(frame: pd.DataFrame, by: str) -> Figure:
    """Draw how the known costs add up over time, one layer per group."""
    require_columns(frame, ("start_time", "cost_usd"), "plot_cost")
    costs, unpriced = _costs(frame)
    groups = _largest(group_values(frame, by, "plot_cost"), costs)
    known = pd.DataFrame({"time": frame["start_time"], "cost": costs, "group": groups}).dropna()
    steps = known.pivot_table(index="time", columns="group", values="cost", aggfunc="sum").fillna(0).cumsum()
    order = steps.iloc[-1].sort_values(ascending=False).index if len(steps) else steps.columns
    figure, (axes,) = canvas(height_in=3.4)
    _draw_layers(axes, steps[order])
    axes.set_ylabel("US dollars, added up")
    axes.yaxis.set_major_formatter(lambda value, _: dollars_text(value))
    axes.set_xlabel("time (UTC)")
    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.6)
    left_out = (
        f", {unpriced:,} call{'' if unpriced == 1 else 's'} of unknown cost left out" if unpriced else ""
    )
    title(axes, f"{dollars_text(float(known['cost'].sum()))} by {by}{left_out}")
    return figure


def draw_tokens_by(frame: pd.DataFrame, by: str) -> Figure:
    """Draw input and output tokens of each group as one bar, largest on top."""
    require_columns(frame, ("input_tokens", "output_tokens"), "plot_tokens")
    tokens = count_once(frame) if _is_tree(frame) else frame
    groups = group_values(frame, by, "plot_tokens").astype("string").fillna(_NONE)
    pair = tokens[["input_tokens", "output_tokens"]].astype("float64")
    sums = pair[pair.notna().any(axis=1)].groupby(groups).sum()
    sums = sums.loc[sums.sum(axis=1).sort_values().index]
    figure, (axes,) = canvas(height_in=1.3 + 0.4 * max(len(sums), 2))
    rows = range(len(sums))
    axes.barh(rows, sums["input_tokens"], color=INPUT_COLOR, label="input", height=0.62)
    axes.barh(
        rows,
        sums["output_tokens"],
        left=sums["input_tokens"],
        color=OUTPUT_COLOR,
        label="output",
        height=0.62,
    )
    for row, whole in enumerate(sums.sum(axis=1)):
        axes.annotate(
            f"{whole:,.0f}", (whole, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.set_yticks(rows, [short(str(group)) for group in sums.index], parse_math=False)
    axes.set_ylim(-0.6, max(len(sums), 1) - 0.4)
    axes.set_xlim(0, float(sums.sum(axis=1).max()) * 1.1 if len(sums) else 1)
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if len(sums):
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    else:
        nothing(axes, "No usage is known.")
    title(axes, f"{sums.to_numpy().sum():,.0f} tokens by {by}")
    return figure


def draw_comparison(
    a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str], on: str | Sequence[str] | None
) -> Figure:
    """Draw latency, tokens and cost of every turn of both, side by side, with the medians."""
    sides = [_per_turn(a), _per_turn(b)]
    pairs = find_pairs(sides[0], sides[1], on)
    figure, all_axes = canvas(height_in=2.9, columns=len(_MEASURES))
    for axes, (measure, (name, unit, text_of)) in zip(all_axes, _MEASURES.items(), strict=True):
        values = [side[measure].astype("float64") for side in sides]
        _draw_pairs(axes, values, pairs)
        for line, some in enumerate(values):
            _draw_side(axes, some.dropna(), line, text_of)
        axes.set_yticks([0, 1], [*map(short, names)] if axes is all_axes[0] else ["", ""])
        axes.set_ylim(1.6, -0.6)
        axes.set_xlim(left=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(_ticks(text_of))
        axes.set_xlabel(unit)
        if all(some.isna().all() for some in values):
            nothing(axes, f"No {name} is known.")
        missing = sum(int(some.isna().sum()) for some in values)
        title(axes, name + (f", {missing} unknown" if missing else ""))
    return figure


def _costs(frame: pd.DataFrame) -> tuple[pd.Series[Any], int]:
    """Return what each row costs by itself, and for how many calls that is not known."""
    if _is_tree(frame):
        counted = count_once(frame)
        return counted["cost_usd"], int(counted["is_unpriced"].sum())
    unpriced = frame["unpriced_count"].sum() if "unpriced_count" in frame.columns else 0
    return frame["cost_usd"], int(unpriced)


def _is_tree(frame: pd.DataFrame) -> bool:
    return all(name in frame.columns for name in _TREE)


def _largest(groups: pd.Series[Any], costs: pd.Series[Any]) -> pd.Series[Any]:
    """Return the groups as texts, all but those that cost most as one."""
    names = groups.astype("string").fillna(_NONE)
    kept = costs.groupby(names).sum().sort_values(ascending=False).index[: len(PALETTE)]
    return names.where(names.isin(kept), _OTHERS)


def _draw_layers(axes: Axes, steps: pd.DataFrame) -> None:
    if steps.empty:
        nothing(axes, "No cost is known.")
        return
    begin = pd.DataFrame(0.0, index=[steps.index[0]], columns=steps.columns)
    heights = pd.concat([begin, steps])
    times = pd.DatetimeIndex(heights.index).tz_convert(None).to_pydatetime()
    below = pd.Series(0.0, index=range(len(heights)))
    for color, group in zip((*PALETTE, OTHER_COLOR), heights.columns, strict=False):
        above = below + heights[group].to_numpy()
        axes.fill_between(
            times, below, above, step="post", color=color, alpha=0.85, linewidth=0, label=short(group)
        )
        below = above
    locator = AutoDateLocator(  # type: ignore[no-untyped-call]
        minticks=3, maxticks=8
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_ylim(bottom=0.0)
    axes.margins(x=0.01)
    for text in axes.legend(frameon=False, fontsize=8, loc="upper left").get_texts():
        text.set_parse_math(False)  # a name may hold a dollar


def _per_turn(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trace of a frame of observations; other frames have one row per turn already."""
    if _is_tree(frame):
        ordered = frame.sort_values("start_time", kind="stable")
        numbers = frame.dropna(subset="message_number").drop_duplicates("trace_id")
        turns = roll_up_traces(ordered).merge(
            numbers[["trace_id", "message_number"]], on="trace_id", how="left"
        )
        questions = roll_up_messages(ordered)[["trace_id", "question"]]
        return turns.merge(questions, on="trace_id", how="left")
    require_columns(frame, tuple(_MEASURES), "plot_comparison")
    return frame


def _draw_pairs(axes: Axes, values: list[pd.Series[Any]], pairs: tuple[Places, Places] | None) -> None:
    """Join by a line what `compare` pairs."""
    if pairs is None:
        return
    a, b = (some.to_numpy()[places] for some, places in zip(values, pairs, strict=True))
    # Many lines would be one dark area.
    alpha = min(0.18, 6 / len(a))
    for left, right in zip(a, b, strict=True):
        if left == left and right == right:
            axes.plot([left, right], [0.0, 1.0], color=INK, alpha=alpha, linewidth=0.8, zorder=1)


def _draw_side(axes: Axes, values: pd.Series[Any], line: int, text_of: Any) -> None:
    if values.empty:
        return
    color = (INPUT_COLOR, PALETTE[1])[line]
    axes.scatter(values, [line] * len(values), s=20, alpha=0.55, linewidths=0, c=color, zorder=2)
    median = float(values.median())
    axes.plot([median, median], [line - 0.26, line + 0.26], color=ERROR_COLOR, linewidth=1.8, zorder=3)
    axes.annotate(
        text_of(median),
        (median, line - 0.28),
        ha="center",
        va="bottom",
        fontsize=7,
        color=ERROR_COLOR,
    )


def _ticks(text_of: Callable[[float], str]) -> Callable[[float, float], str]:
    return lambda value, _: text_of(value)


def check_names(names: tuple[str, str] | None, a: pd.DataFrame, b: pd.DataFrame) -> tuple[str, str]:
    """Return what the two sides are called: as given, else after their sessions."""
    if names is None:
        return _name_of(a, "a"), _name_of(b, "b")
    if len(names) != 2:
        raise ConfigError(f"names is {names!r}. Give two names, one for each frame.")
    return names


def _name_of(frame: pd.DataFrame, otherwise: str) -> str:
    ids = frame["session_id"].dropna().unique().tolist() if "session_id" in frame.columns else []
    return str(ids[0]) if len(ids) == 1 else otherwise

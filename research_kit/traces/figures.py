"""Figures of single observations: waterfall, tokens per row, latencies; imported when matplotlib is there.

Owns what is drawn where; paper and ink are in `canvas`. Invariant: what is left out is counted in the title.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from research_kit.errors import ConfigError
from research_kit.traces.analysis import group_values, require_columns
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
    spread,
    title,
)

__all__ = ["draw_latency", "draw_timeline", "draw_tokens"]

_TYPE_COLORS = {
    "GENERATION": PALETTE[0],
    "TOOL": PALETTE[1],
    "AGENT": PALETTE[2],
    "CHAIN": PALETTE[4],
    "RETRIEVER": PALETTE[3],
    "EMBEDDING": PALETTE[5],
}
_LOG_FROM = 30  # from this ratio of the longest to the shortest latency on, the axis is logarithmic
_MOST_TICKS = 30
_TIMELINE_NEEDS = ("trace_id", "start_time", "type", "name", "depth", "is_error", "latency_s")


def draw_timeline(frame: pd.DataFrame, *, max_rows: int) -> Figure:
    """Draw one bar per observation, from its start to its end within its trace."""
    require_columns(frame, _TIMELINE_NEEDS, "plot_timeline")
    if max_rows < 1:
        raise ConfigError(f"max_rows is {max_rows}. Give a whole number from 1 on.")
    shown = _in_blocks(frame).head(max_rows)
    rows = range(len(shown))
    figure, (axes,) = canvas(height_in=1.2 + 0.24 * max(len(shown), 3))
    colors = shown["color"].tolist()
    # The edge keeps bars visible that are too short to have a width.
    axes.barh(rows, shown["length_s"], left=shown["offset_s"], height=0.72, color=colors, edgecolor=colors)
    axes.set_yticks(rows, _aligned(shown["label"].tolist()), family="monospace", fontsize=8, parse_math=False)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlabel("seconds since the start of the trace")
    _write_latencies(axes, shown)
    _separate_traces(axes, shown)
    _explain_colors(figure, shown)
    if shown.empty:
        nothing(axes, "No observations.")
    left_out = "" if len(shown) == len(frame) else f" of {len(frame):,}, the first ones"
    title(axes, f"{len(shown):,} observations{left_out}")
    return figure


def draw_tokens(frame: pd.DataFrame) -> Figure:
    """Draw input and output tokens per row as stacked bars."""
    require_columns(frame, ("input_tokens", "output_tokens"), "plot_tokens")
    shown = frame[frame["input_tokens"].notna() | frame["output_tokens"].notna()]
    tokens_in = shown["input_tokens"].fillna(0).astype("int64")
    tokens_out = shown["output_tokens"].fillna(0).astype("int64")
    figure, (axes,) = canvas(height_in=3.4)
    axes.bar(range(len(shown)), tokens_in, color=INPUT_COLOR, label="input", width=0.7)
    axes.bar(range(len(shown)), tokens_out, bottom=tokens_in, color=OUTPUT_COLOR, label="output", width=0.7)
    _number_bars(axes, shown)
    axes.set_ylabel("tokens")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.6)
    if len(shown):
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    else:
        nothing(axes, "No usage is known.")
    missing = len(frame) - len(shown)
    left_out = f", {missing} without known usage left out" if missing else ""
    title(axes, f"{int(tokens_in.sum() + tokens_out.sum()):,} tokens{left_out}")
    return figure


def draw_latency(frame: pd.DataFrame, by: str) -> Figure:
    """Draw all latencies as points, one line per group, slowest group on top."""
    require_columns(frame, ("latency_s",), "plot_latency")
    latencies = frame["latency_s"].where(frame["latency_s"] > 0).dropna()
    groups = group_values(frame, by, "plot_latency").astype("string").fillna("(none)")[latencies.index]
    medians = latencies.groupby(groups).median().sort_values()
    figure, (axes,) = canvas(height_in=1.2 + 0.45 * max(len(medians), 2))
    for line, (group, median_s) in enumerate(medians.items()):
        values = latencies[groups == group]
        axes.scatter(values, spread(len(values), line), s=18, alpha=0.45, linewidths=0, c=INPUT_COLOR)
        axes.plot([median_s, median_s], [line - 0.34, line + 0.34], color=ERROR_COLOR, linewidth=1.6)
        p95_s = float(values.quantile(0.95))
        axes.plot([p95_s, p95_s], [line - 0.2, line + 0.2], color=ERROR_COLOR, linewidth=1.2, linestyle=":")
        axes.annotate(
            duration(float(median_s)),
            (float(median_s), line + 0.34),
            ha="center",
            va="bottom",
            fontsize=7,
            color=ERROR_COLOR,
        )
    axes.set_yticks(range(len(medians)), [short(str(group)) for group in medians.index], parse_math=False)
    axes.set_ylim(-0.6, max(len(medians), 1) - 0.3)
    if len(latencies) and latencies.max() > _LOG_FROM * latencies.min():
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(lambda value, _: duration(value))
    if latencies.empty:
        nothing(axes, "No latency is known.")
    missing = len(frame) - len(latencies)
    left_out = f", {missing} without known latency left out" if missing else ""
    title(axes, f"{len(latencies):,} latencies by {by}: median, and 95th percentile dotted{left_out}")
    return figure


def _in_blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what the waterfall needs of each observation, one trace after the other."""
    begins = frame.groupby("trace_id")["start_time"].transform("min")
    depths = frame["depth"].fillna(0).astype("int64").tolist()
    names = frame["name"].fillna("").tolist()
    blocks = pd.DataFrame(
        {
            "trace_id": frame["trace_id"],
            "trace_start": begins,
            "start_time": frame["start_time"],
            "offset_s": (frame["start_time"] - begins).dt.total_seconds(),
            "length_s": frame["latency_s"].fillna(0.0),
            "color": [
                ERROR_COLOR if failed else _TYPE_COLORS.get(kind, OTHER_COLOR)
                for failed, kind in zip(
                    frame["is_error"].fillna(False), frame["type"].fillna(""), strict=True
                )
            ],
            "kind": frame["type"].where(frame["type"].isin(list(_TYPE_COLORS)), "other"),
            "label": [short("  " * min(depth, 6) + name) for depth, name in zip(depths, names, strict=True)],
        }
    )
    return blocks.sort_values(["trace_start", "trace_id", "start_time"], kind="stable", ignore_index=True)


def _aligned(labels: list[str]) -> list[str]:
    """Fill labels up to one length, so that their indentation shows beside the axis."""
    length = max(map(len, labels), default=0)
    return [label.ljust(length) for label in labels]


def _write_latencies(axes: Axes, shown: pd.DataFrame) -> None:
    numbers = zip(shown["offset_s"], shown["length_s"], strict=True)
    for row, (offset_s, length_s) in enumerate(numbers):
        axes.annotate(
            duration(length_s) if length_s else "< 1 ms",
            (offset_s + max(length_s, 0.0), row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK,
        )
    last_s = float((shown["offset_s"] + shown["length_s"]).max()) if len(shown) else 0.0
    axes.set_xlim(0.0, last_s * 1.09 or 1.0)  # room for the duration beside the longest bar


def _separate_traces(axes: Axes, shown: pd.DataFrame) -> None:
    is_first = ~shown["trace_id"].duplicated()
    for row in is_first[is_first].index[1:]:
        axes.axhline(row - 0.5, color=INK, linewidth=0.5, linestyle=(0, (2, 3)))


def _explain_colors(figure: Figure, shown: pd.DataFrame) -> None:
    kinds = [kind for kind in (*_TYPE_COLORS, "other") if (shown["kind"] == kind).any()]
    patches = [Patch(color=_TYPE_COLORS.get(kind, OTHER_COLOR), label=str(kind).lower()) for kind in kinds]
    if (shown["color"] == ERROR_COLOR).any():
        patches.append(Patch(color=ERROR_COLOR, label="error"))
    if patches:
        figure.legend(
            handles=patches, frameon=False, fontsize=8, ncols=len(patches), loc="outside lower left"
        )


def _number_bars(axes: Axes, shown: pd.DataFrame) -> None:
    """Write what each bar is: its message number when it has one, else its place."""
    has_numbers = "message_number" in shown.columns and shown["message_number"].notna().all()
    numbers = shown["message_number"].tolist() if has_numbers else list(range(1, len(shown) + 1))
    step = max(1, -(-len(numbers) // _MOST_TICKS))
    axes.set_xticks(range(0, len(numbers), step), [str(number) for number in numbers[::step]])
    axes.set_xlabel("message" if has_numbers else "row")

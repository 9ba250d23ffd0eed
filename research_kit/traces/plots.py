"""Pictures of frames, drawn with matplotlib (extra ``plots``).

Owns what is asked for; `figures` draws. Invariant: no plot touches pyplot's global state, and every figure
shows itself in a notebook, whatever backend is active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from research_kit._optional import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["plot_comparison", "plot_cost", "plot_latency", "plot_timeline", "plot_tokens"]


def plot_timeline(frame: pd.DataFrame, *, max_rows: int = 60) -> Figure:
    """Return a waterfall: one bar per observation, coloured by type, one block per trace.

    The axis counts seconds from the start of each trace, so pauses between messages take no room. The title
    says when ``max_rows`` left observations out.

    Args:
        frame: One row per observation, as from `observations_df`.
        max_rows: How many observations to draw at most, the first ones.

    Raises:
        ConfigError: When the frame lacks a column, or ``max_rows`` is below 1.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.figures import draw_timeline

    return draw_timeline(frame, max_rows=max_rows)


def plot_cost(frame: pd.DataFrame, by: str = "model") -> Figure:
    """Return how cost adds up over time (UTC), in US dollars, one layer per group.

    Of observations inside one another only the innermost that carries a cost counts. Calls of unknown cost
    are left out and counted in the title; the six most expensive groups have a layer of their own.

    Args:
        frame: Complete traces of `observations_df`; frames with one row per trace, message or cell work as
            well, without ``by`` words that they have no column for.
        by: The group, in the words of `cost_by`: ``model``, ``user``, ``session``, ``tool``, ``cell``...

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.sum_figures import draw_cost

    return draw_cost(frame, by)


def plot_tokens(frame: pd.DataFrame, by: str | None = None) -> Figure:
    """Return input and output tokens as stacked bars: one bar per row, or one per group.

    Args:
        frame: Usually `messages_df`: one bar per chat message; traces and generations work as well. With
            ``by``, complete traces of `observations_df`, in which repeated tokens count once.
        by: The group, in the words of `cost_by`, such as ``model``; None for one bar per row that has tokens,
            in the frame's order.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.figures import draw_tokens
    from research_kit.traces.sum_figures import draw_tokens_by

    return draw_tokens(frame) if by is None else draw_tokens_by(frame, by)


def plot_comparison(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    names: tuple[str, str] | None = None,
    on: str | Sequence[str] | None = None,
) -> Figure:
    """Return latency, tokens and cost of every turn of two sessions, with the medians.

    A line joins the turns that `compare` takes as pairs: by default those that ask the same.

    Args:
        a: One session: complete traces of `observations_df`, or one row per turn, as from `messages_df`.
        b: The other session, as the same kind of frame.
        names: What to call them; by default their session ids.
        on: Columns whose values make a pair, as in `compare`.

    Raises:
        ConfigError: When a frame lacks a column, there are not two names, or fewer than two turns match.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.sum_figures import check_names, draw_comparison

    return draw_comparison(a, b, check_names(names, a, b), on)


def plot_latency(frame: pd.DataFrame, by: str = "type") -> Figure:
    """Return every latency as a point, one line per group, with marks at the median and the 95th percentile.

    Args:
        frame: Any frame with ``latency_s`` and the column of the group, as from `observations_df`.
        by: The group, in the words of `cost_by`: ``type``, ``model``, ``name``, ``session``...

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks a column.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.figures import draw_latency

    return draw_latency(frame, by)

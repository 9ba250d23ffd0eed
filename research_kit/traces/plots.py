"""Pictures of frames, drawn with matplotlib (extra ``plots``).

Owns what is asked for; `figures` draws. Invariant: no plot touches pyplot's global state, and every figure
shows itself in a notebook, whatever backend is active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from research_kit._optional import require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["plot_latency", "plot_timeline", "plot_tokens"]


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


def plot_tokens(frame: pd.DataFrame) -> Figure:
    """Return input and output tokens as stacked bars, one bar per row that has tokens, in the frame's order.

    Args:
        frame: Usually `messages_df`: one bar per chat message; traces and generations work as well.

    Raises:
        ConfigError: When the frame lacks a column.
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib", extra="plots", purpose="draw plots")
    from research_kit.traces.figures import draw_tokens

    return draw_tokens(frame)


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

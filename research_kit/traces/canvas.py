"""What all figures have in common: paper, ink, colours, and words for durations on axes.

Owns the look. Invariant: figures are made without pyplot, so nothing is kept alive or shown twice.
"""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ERROR_COLOR",
    "GRID_COLOR",
    "INK",
    "INPUT_COLOR",
    "OTHER_COLOR",
    "OUTPUT_COLOR",
    "PALETTE",
    "NotebookFigure",
    "canvas",
    "duration",
    "nothing",
    "short",
    "spread",
    "title",
]

# Okabe and Ito's palette, which readers with any form of colour vision can tell apart.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
OTHER_COLOR = "#999999"
ERROR_COLOR = "#D55E00"
INPUT_COLOR, OUTPUT_COLOR = "#0072B2", "#56B4E9"
INK = "#333333"
GRID_COLOR = "#e6e6e6"
_LABEL_LENGTH = 34
_SHOWN_DPI = 110
_SHARPNESS = 2  # pixels per shown pixel, for screens that have them


class NotebookFigure(Figure):
    """A figure that shows itself in a notebook without pyplot or an inline backend."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=_SHOWN_DPI * _SHARPNESS)
        width_in, height_in = self.get_size_inches()
        return picture.getvalue(), {
            "width": round(width_in * _SHOWN_DPI),
            "height": round(height_in * _SHOWN_DPI),
        }


def canvas(*, height_in: float, columns: int = 1) -> tuple[NotebookFigure, list[Axes]]:
    """Return an empty figure with so many axes side by side."""
    figure = NotebookFigure(figsize=(8.4, min(height_in, 40.0)), layout="constrained", facecolor="white")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for one in axes:
        _quiet(one)
    return figure, axes


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=8)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    axes.grid(axis="x", color=GRID_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)


def title(axes: Axes, text: str) -> None:
    """Say what is to be seen."""
    axes.set_title(text, loc="left", fontsize=10, color=INK, pad=8, parse_math=False)


def nothing(axes: Axes, text: str) -> None:
    """Say that there is nothing to draw, and why."""
    axes.set(xticks=[], yticks=[])
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=OTHER_COLOR
    )


def spread(count: int, line: int) -> list[float]:
    """Return heights around a line so that points do not hide one another, the same in every run."""
    return [line + ((number * 7) % 11 - 5) / 22 for number in range(count)]


def duration(seconds: float) -> str:
    """Return seconds as a short text."""
    if seconds == 0.0:
        return "0"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def short(text: str) -> str:
    """Return a label that fits beside an axis."""
    return text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"

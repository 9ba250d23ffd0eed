"""Charts of one DataFrame, asked for in typed terms.

Owns the kinds of chart and how they are drawn; which numbers, `queries.chart_rows` says. Invariant: a chart
is described by data, never by code, what is drawn is bounded, and the notebook's own figures are left
alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Literal

from research_kit._optional import require
from research_kit.agent.queries import QueryCall, QueryError
from research_kit.agent.queries.answers import show
from research_kit.agent.queries.chart_rows import ChartColumn, ChartRows, Sample
from research_kit.agent.queries.filters import explained
from research_kit.agent.queries.frames import is_number, plain_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Chart", "ChartKind", "DrawnChart", "draw_chart"]

ChartKind = Literal["bar", "box", "histogram", "line", "scatter"]

_MAX_POINTS = 20_000
_MAX_BOX_ROWS = 100_000
_MAX_BARS = 40
_MAX_SERIES = 10
_SIZE_INCHES = (6.4, 4.0)
_DPI = 110
# A title is a model's text, and LaTeX can read files.
_LATEX = {character: rf"\{character}" for character in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What to draw.

    Attributes:
        kind: The kind of chart.
        x: Column along the horizontal axis; of a histogram the one that is counted.
        y: Column along the vertical axis; of rows with the same x, bars and lines show the mean. A bar chart
            without it counts rows.
        by: Column whose values are drawn in colours of their own.
        title: Shown above; made from the columns when empty.
    """

    kind: ChartKind
    x: str
    y: str | None = None
    by: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnChart:
    """A picture, and what is in it in words."""

    png: bytes
    text: str


def draw_chart(
    frame: pd.DataFrame, chart: Chart, *, query: str | None = None, call: QueryCall | None = None
) -> DrawnChart:
    """Draw ``chart`` from ``frame``, which is not changed.

    Args:
        frame: The table.
        chart: What to draw.
        query: Only rows for which this expression holds are drawn.
        call: Limits of the computation, and the way to cancel it.

    Raises:
        MissingExtraError: When matplotlib is not installed.
        QueryError: When a column does not exist, or does not suit the kind of chart.
    """
    require("matplotlib", extra="plots", purpose="draw charts")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with explained():
        rows = ChartRows(plain_frame(frame), _columns(chart), query, call or QueryCall())
        # A figure of its own, not pyplot's, which belongs to the notebook's cells.
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        drawn = _DRAWERS[chart.kind](axes, rows, chart)
        title = chart.title or _default_title(chart)
        axes.set_title(_literal(title))
        axes.spines[["top", "right"]].set_visible(False)
        picture = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(picture, format="png")
    return DrawnChart(png=picture.getvalue(), text=f"{chart.kind} chart {title!r}: {drawn}{rows.about}")


def _columns(chart: Chart) -> dict[str, ChartColumn]:
    """Return the columns that are drawn, by their role; rows that miss one of them are left out."""
    named = {"x": chart.x, "y": chart.y, "by": chart.by}
    if named["y"] is None and chart.kind in ("box", "line", "scatter"):
        raise QueryError(f"a {chart.kind} chart needs a column for 'y'.")
    return {
        role: ChartColumn(name=name, is_number=role == "y" or (role == "x" and chart.kind == "histogram"))
        for role, name in named.items()
        if name is not None
    }


def _draw_points(axes: Any, rows: ChartRows, chart: Chart) -> str:
    points = rows.sample(_MAX_POINTS)
    sample = points.frame.assign(x=_horizontal(axes, points.frame["x"]))
    for label, part in _series(sample):
        if chart.kind == "line":
            means = part.groupby("x", observed=True)["y"].mean()
            axes.plot(means.index, means.to_numpy(), label=label)
        else:
            axes.scatter(part["x"], part["y"], s=14, alpha=0.7, label=label)
    repeats = chart.kind == "line" and sample.duplicated(["x", "by"] if chart.by else ["x"]).any()
    _label(axes, chart, f"mean {chart.y}" if repeats else chart.y)
    return f"{len(sample)} points{_left_out(points)}"


def _horizontal(axes: Any, values: pd.Series) -> Any:
    """Return where the points are; of texts their place, with the texts, or some of them, below."""
    import pandas as pd

    if is_number(values) or pd.api.types.is_datetime64_any_dtype(values):
        return values
    is_category = isinstance(values.dtype, pd.CategoricalDtype)
    codes, different = pd.factorize(values if is_category else values.map(show), sort=True)
    step = max(1, -(-len(different) // _MAX_BARS))
    places = range(0, len(different), step)
    _set_ticks(axes, list(places), [show(different[place]) for place in places])
    return codes


def _series(sample: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """Return the rows of each colour, most rows first."""
    if "by" not in sample:
        return [(None, sample)]
    by = sample["by"].map(show)
    largest = by.value_counts().head(_MAX_SERIES).index
    return [(_literal(key), sample[by == key]) for key in largest]


def _draw_histogram(axes: Any, rows: ChartRows, chart: Chart) -> str:
    histogram = rows.histogram(max_bins=_MAX_BARS, max_series=_MAX_SERIES)
    edges = histogram.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    for name, counts in histogram.series:
        label = None if name is None else _literal(show(name))
        axes.hist(middles, bins=edges, weights=counts, alpha=0.6 if chart.by else 1.0, label=label)
    _label(axes, chart, "rows")
    return f"{histogram.row_count} values from {show(edges[0])} to {show(edges[-1])}"


def _draw_bars(axes: Any, rows: ChartRows, chart: Chart) -> str:
    bars = rows.bars(max_bars=_MAX_BARS, max_series=_MAX_SERIES)
    width = 0.8 / len(bars.series)
    for number, (name, heights) in enumerate(bars.series):
        places = [place + number * width for place in range(len(bars.names))]
        label = None if name is None else _literal(show(name))
        axes.bar(places, heights, width=width, label=label)
    middle = 0.4 - width / 2
    _set_ticks(
        axes, [place + middle for place in range(len(bars.names))], [show(name) for name in bars.names]
    )
    _label(axes, chart, "rows" if chart.y is None else f"mean {chart.y}")
    cut = f" of {bars.total}" if bars.total > len(bars.names) else ""
    return f"{len(bars.names)}{cut} bars"


def _draw_boxes(axes: Any, rows: ChartRows, chart: Chart) -> str:
    sample = rows.sample(_MAX_BOX_ROWS)
    groups = list(islice(sample.frame.groupby("x", observed=True), _MAX_BARS))
    labels = [_literal(show(key)) for key, _ in groups]
    axes.boxplot([part["y"].to_numpy() for _, part in groups], tick_labels=labels)
    _label(axes, chart, chart.y)
    return f"{len(groups)} boxes over {len(sample.frame)} rows{_left_out(sample)}"


def _left_out(sample: Sample) -> str:
    more = sample.row_count - len(sample.frame)
    return f"; {more} more are left out" if more else ""


def _set_ticks(axes: Any, places: list[Any], names: list[str]) -> None:
    is_crowded = len(names) > 6
    axes.set_xticks(
        places,
        [_literal(name) for name in names],
        rotation=45 if is_crowded else 0,
        ha="right" if is_crowded else "center",
    )


_DRAWERS = {
    "bar": _draw_bars,
    "box": _draw_boxes,
    "histogram": _draw_histogram,
    "line": _draw_points,
    "scatter": _draw_points,
}


def _label(axes: Any, chart: Chart, vertical: str | None) -> None:
    axes.set_xlabel(_literal(show(chart.x)))
    axes.set_ylabel(_literal(show(vertical or "")))
    if chart.by is not None and axes.get_legend_handles_labels()[0]:
        axes.legend(title=_literal(show(chart.by)), frameon=False)


def _default_title(chart: Chart) -> str:
    subject = show(chart.x) if chart.y is None else f"{show(chart.y)} by {show(chart.x)}"
    return subject if chart.by is None else f"{subject}, for each {show(chart.by)}"


def _literal(text: str) -> str:
    """Return ``text`` such that it is drawn as it is: no formulas are read in it, and LaTeX runs nothing."""
    import matplotlib

    text = "".join(character if character.isprintable() else " " for character in text)
    if matplotlib.rcParams["text.usetex"]:
        return "".join(_LATEX.get(character, character) for character in text)
    return text.replace("$", r"\$")

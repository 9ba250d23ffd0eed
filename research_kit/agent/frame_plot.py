"""Charts of one DataFrame, asked for in typed terms.

Owns the kinds of chart and how they are drawn; does not look up variables. Invariant: a chart is described by
data, never by code, and drawing it leaves the notebook's own figures alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research_kit._optional import require
from research_kit.agent.frame_query import QueryError, column_of, is_number, show

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Chart", "ChartKind", "DrawnChart", "draw_chart"]

ChartKind = Literal["bar", "box", "histogram", "line", "scatter"]

_MAX_POINTS = 20_000
_MAX_BARS = 40
_MAX_SERIES = 10
_SIZE_INCHES = (6.4, 4.0)
_DPI = 110


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


def draw_chart(frame: pd.DataFrame, chart: Chart) -> DrawnChart:
    """Draw ``chart`` from ``frame``, which is not changed.

    Raises:
        MissingExtraError: When matplotlib is not installed.
        QueryError: When a column does not exist, or does not suit the kind of chart.
    """
    require("matplotlib", extra="plots", purpose="draw charts")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's, which belongs to the notebook's cells.
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    drawn = _DRAWERS[chart.kind](axes, _columns(frame, chart), chart)
    title = chart.title or _default_title(chart)
    axes.set_title(_literal(title))
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png")
    return DrawnChart(png=picture.getvalue(), text=f"{chart.kind} chart {title!r}: {drawn}")


def _columns(frame: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    """Return the columns that are drawn, named x, y and by, without rows that miss one of them."""
    import pandas as pd

    named = {"x": chart.x, "y": chart.y, "by": chart.by}
    parts = {role: column_of(frame, name) for role, name in named.items() if name is not None}
    together = pd.DataFrame({role: series.to_numpy() for role, series in parts.items()})
    needed = {"histogram": ("x",), "box": ("y",)}.get(chart.kind, ("y",) if chart.kind != "bar" else ())
    for role in (*needed, *(("y",) if "y" in parts else ())):
        if role not in parts:
            raise QueryError(f"a {chart.kind} chart needs a column for {role!r}.")
        if not is_number(together[role]):
            raise QueryError(f"the column {named[role]!r} holds {together[role].dtype}, not numbers.")
    rows = together.dropna()
    if rows.empty:
        raise QueryError("no row has values in all of these columns.")
    return rows


def _series(rows: pd.DataFrame, chart: Chart) -> list[tuple[str | None, pd.DataFrame]]:
    """Return the rows of each colour, most rows first."""
    if chart.by is None:
        return [(None, rows)]
    largest = rows["by"].value_counts().head(_MAX_SERIES).index
    return [(_literal(show(key)), rows[rows["by"] == key]) for key in largest]


def _draw_points(axes: Any, rows: pd.DataFrame, chart: Chart) -> str:
    sample = rows if len(rows) <= _MAX_POINTS else rows.sample(_MAX_POINTS, random_state=0).sort_index()
    for label, part in _series(sample, chart):
        if chart.kind == "line":
            means = part.groupby("x", observed=True)["y"].mean()
            axes.plot(means.index, means.to_numpy(), label=label)
        else:
            axes.scatter(part["x"], part["y"], s=14, alpha=0.7, label=label)
    repeats = chart.kind == "line" and rows.duplicated(["x", "by"] if chart.by else ["x"]).any()
    _label(axes, chart, f"mean {chart.y}" if repeats else chart.y)
    left_out = f"; {len(rows) - len(sample)} more are left out" if len(sample) < len(rows) else ""
    return f"{len(sample)} points{left_out}"


def _draw_histogram(axes: Any, rows: pd.DataFrame, chart: Chart) -> str:
    import numpy as np

    edges = np.histogram_bin_edges(rows["x"].to_numpy(dtype=float), bins="auto")
    if len(edges) > _MAX_BARS + 1:
        edges = np.linspace(edges[0], edges[-1], _MAX_BARS + 1)
    for label, part in _series(rows, chart):
        axes.hist(part["x"], bins=edges, alpha=0.6 if chart.by else 1.0, label=label)
    _label(axes, chart, "rows")
    return f"{len(rows)} values from {show(float(edges[0]))} to {show(float(edges[-1]))}"


def _draw_bars(axes: Any, rows: pd.DataFrame, chart: Chart) -> str:
    keys = ["x", "by"] if chart.by is not None else ["x"]
    groups = rows.groupby(keys, observed=True)
    values = groups.size() if chart.y is None else groups["y"].mean()
    table = values.unstack("by").iloc[:, :_MAX_SERIES] if chart.by is not None else values.to_frame("")
    shown = table.head(_MAX_BARS)
    width = 0.8 / len(shown.columns)
    for number, name in enumerate(shown.columns):
        places = [place + number * width for place in range(len(shown))]
        label = _literal(show(name)) if chart.by is not None else None
        axes.bar(places, shown[name].fillna(0), width=width, label=label)
    middle = 0.4 - width / 2
    axes.set_xticks(
        [place + middle for place in range(len(shown))],
        [_literal(show(key)) for key in shown.index],
        rotation=45 if len(shown) > 6 else 0,
        ha="right" if len(shown) > 6 else "center",
    )
    _label(axes, chart, "rows" if chart.y is None else f"mean {chart.y}")
    cut = f" of {len(table)}" if len(table) > len(shown) else ""
    return f"{len(shown)}{cut} bars"


def _draw_boxes(axes: Any, rows: pd.DataFrame, chart: Chart) -> str:
    groups = list(rows.groupby("x", observed=True))[:_MAX_BARS]
    labels = [_literal(show(key)) for key, _ in groups]
    axes.boxplot([part["y"].to_numpy() for _, part in groups], tick_labels=labels)
    _label(axes, chart, chart.y)
    return f"{len(groups)} boxes over {len(rows)} rows"


_DRAWERS = {
    "bar": _draw_bars,
    "box": _draw_boxes,
    "histogram": _draw_histogram,
    "line": _draw_points,
    "scatter": _draw_points,
}


def _label(axes: Any, chart: Chart, vertical: str | None) -> None:
    axes.set_xlabel(_literal(chart.x))
    axes.set_ylabel(_literal(vertical or ""))
    if chart.by is not None:
        axes.legend(title=_literal(chart.by), frameon=False)


def _default_title(chart: Chart) -> str:
    subject = chart.x if chart.y is None else f"{chart.y} by {chart.x}"
    return subject if chart.by is None else f"{subject}, for each {chart.by}"


def _literal(text: str) -> str:
    """Return ``text`` such that matplotlib reads no formulas in it: a broken one would be an error."""
    return text.replace("$", r"\$")

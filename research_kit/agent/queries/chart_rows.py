"""What charts need of a DataFrame: a bounded number of points, bars or bins, however many rows there are.

Owns the statements; draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from research_kit.agent.queries.answers import QueryError
from research_kit.agent.queries.columns import Column
from research_kit.agent.queries.filters import select_rows
from research_kit.agent.queries.frames import is_number
from research_kit.agent.queries.selection import TABLE, Run, Selection

if TYPE_CHECKING:
    import pandas as pd

    from research_kit.agent.queries.calls import QueryCall

__all__ = ["Bars", "ChartColumn", "ChartRows", "Histogram", "Sample"]

_SAMPLE_FOR_BINS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartColumn:
    """A column that is drawn, and whether it must hold numbers."""

    name: str
    is_number: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows with the columns named by role, and the number of rows that they are from."""

    frame: pd.DataFrame
    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Edges of the bins, and the counts of each series; the name is None when there is one only."""

    edges: list[float]
    series: list[tuple[Any, list[int]]]
    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The names below the bars, the heights of each series, and how many bars there would be."""

    names: list[Any]
    series: list[tuple[Any, list[float]]]
    total: int


class ChartRows:
    """The rows that have values in all columns that are drawn.

    Args:
        frame: The table.
        columns: The columns by their role: ``x``, ``y``, ``by``.
        query: Only rows for which this expression holds.
        call: Limits of the computation.

    Raises:
        QueryError: When a column does not exist, or holds no numbers where it must.
    """

    def __init__(
        self, frame: pd.DataFrame, columns: Mapping[str, ChartColumn], query: str | None, call: QueryCall
    ) -> None:
        selected = select_rows(frame, [], query)
        self.about = selected.about
        self._rows: Selection = selected.rows
        self._call = call
        self._columns: dict[str, Column] = {}
        self._sql: dict[str, str] = {}
        for role, chosen in columns.items():
            self._columns[role] = self._drawn(chosen)
            self._sql[role] = self._rows.values(self._columns[role])

    def sample(self, most: int) -> Sample:
        """Return at most ``most`` rows, the same ones each time."""
        with self._rows.running(self._call) as run:
            return self._sample(run, most)

    def histogram(self, *, max_bins: int, max_series: int) -> Histogram:
        """Return how many values of ``x`` are in each bin, for the most frequent values of ``by``."""
        import numpy as np

        x, by = self._sql["x"], self._sql.get("by")
        with self._rows.running(self._call) as run:
            sample = self._sample(run, _SAMPLE_FOR_BINS)
            [[lowest, highest]] = run(f"SELECT min({x}), max({x}) FROM {TABLE}{self._rows.where()}")
            span = (float(lowest), float(highest))
            edges = np.histogram_bin_edges(sample.frame["x"].to_numpy(dtype=float), bins="auto", range=span)
            if len(edges) > max_bins + 1:
                edges = np.linspace(edges[0], edges[-1], max_bins + 1)
            counts = ", ".join(f"count(*) FILTER ({bin_})" for bin_ in self._bins(x, edges.tolist()))
            group = f" GROUP BY {by} ORDER BY count(*) DESC, min(position) LIMIT {max_series}" if by else ""
            rows = run(
                f"SELECT {by or 'NULL'}, {counts} FROM {self._rows.numbered}{self._rows.where()}{group}"
            )
        series = [(self._read("by", row[0]), row[1:]) for row in rows]
        return Histogram(edges=edges.tolist(), series=series, row_count=sample.row_count)

    def bars(self, *, max_bars: int, max_series: int) -> Bars:
        """Return the mean of ``y``, or the number of rows, for the first values of ``x`` and ``by``."""
        x, by, y = self._sql["x"], self._sql.get("by", "0"), self._sql.get("y")
        height = "count(*)" if y is None else f"avg(CAST({y} AS DOUBLE))"
        statement = (
            f"WITH bars AS (SELECT {x} AS x, {by} AS by_, {height} AS height FROM {TABLE}{self._rows.where()}"
            " GROUP BY ALL), placed AS (SELECT *, dense_rank() OVER (ORDER BY x) AS place,"
            " dense_rank() OVER (ORDER BY by_) AS number FROM bars)"
            " SELECT x, by_, height, (SELECT count(DISTINCT x) FROM bars) FROM placed"
            f" WHERE place <= {max_bars} AND number <= {max_series} ORDER BY place, number"
        )
        with self._rows.running(self._call) as run:
            self._count(run)
            rows = run(statement)
        names, keys = list(dict.fromkeys(row[0] for row in rows)), sorted({row[1] for row in rows})
        heights = {(row[0], row[1]): row[2] or 0 for row in rows}
        series = [(self._read("by", key), [heights.get((name, key), 0) for name in names]) for key in keys]
        return Bars(names=[self._read("x", name) for name in names], series=series, total=rows[0][3])

    def _drawn(self, chosen: ChartColumn) -> Column:
        column = self._rows.column(chosen.name)
        if chosen.is_number and not is_number(column.series):
            raise QueryError(f"the column {column.name!r} holds {column.series.dtype}, not numbers.")
        sql = self._rows.values(column)
        # There is no place for infinity in a picture.
        is_finite = f"isfinite(CAST({sql} AS DOUBLE))" if is_number(column.series) else "TRUE"
        self._rows.keep(f"{sql} IS NOT NULL AND {is_finite}")
        return column

    def _count(self, run: Run) -> int:
        [[count]] = run(f"SELECT count(*) FROM {TABLE}{self._rows.where()}")
        if count == 0:
            raise QueryError("no row has values in all of these columns.")
        return int(count)

    def _sample(self, run: Run, most: int) -> Sample:
        import pandas as pd

        count = self._count(run)
        order = "hash(position)" if count > most else "position"
        rows = run(
            f"SELECT position FROM {self._rows.numbered}{self._rows.where()} ORDER BY {order} LIMIT {most}"
        )
        positions = sorted(row[0] for row in rows)
        parts = {role: column.series.iloc[positions] for role, column in self._columns.items()}
        frame = pd.DataFrame({role: part.reset_index(drop=True) for role, part in parts.items()})
        return Sample(frame=frame, row_count=count)

    def _bins(self, x: str, edges: list[float]) -> list[str]:
        bound = [self._rows.parameter(edge) for edge in edges]
        conditions = [f"{x} >= {low} AND {x} < {high}" for low, high in pairwise(bound)]
        # The last one has its end in it, as in numpy.
        conditions[-1] = conditions[-1].replace("<", "<=")
        return conditions

    def _read(self, role: str, value: Any) -> Any:
        return self._columns[role].values.read(value) if role in self._columns else None

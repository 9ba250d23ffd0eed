"""A notebook that reproduces the analysis of a session.

Owns its cells. Invariant: no text of a trace is in the notebook itself, only in the Parquet files beside it,
so nothing that a model wrote can become code.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from research_kit.traces.analysis import require_columns
from research_kit.views.nodes import NEEDS
from research_kit.views.table_files import write_table_file

__all__ = ["write_notebook_file"]

_CELLS = (
    ("title", "# Analysis of a session\n\nReads the Parquet files beside it and needs server and no key."),
    ("load", "import research_kit as rk\n\nobservations = rk.read_export(data)"),
    ("load-scores", "scores = rk.read_export(scores_data) if scores_data else None"),
    ("replay-title", "## What happened"),
    ("replay", "rk.replay(observations, scores=scores)"),
    ("cost-title", "## What it cost"),
    ("cost", 'rk.cost_by(observations, "model")'),
    ("cost-plot", "rk.plot_cost(observations)"),
    ("time-title", "## Where the time went"),
    ("latency", 'rk.latency_summary(observations, "type")'),
    ("latency-plot", 'rk.plot_latency(observations, "type")'),
    ("slowest-title", "## The slowest trace"),
    (
        "slowest",
        'traces = observations.groupby("trace_id")\n'
        'latencies = traces["end_time"].max() - traces["start_time"].min()\n'
        "slowest = latencies.sort_values().index[-1:]\n"
        'rk.show(observations[observations["trace_id"].isin(slowest)])',
    ),
    ("errors-title", "## What went wrong"),
    ("errors", 'observations.loc[observations["is_error"], ["start_time", "type", "name", "error"]]'),
)  # fmt: skip


def write_notebook_file(frame: pd.DataFrame, scores: pd.DataFrame | None, path: Path) -> None:
    """Write the notebook, and the frames that it reads beside it.

    Raises:
        ConfigError: When the frame is not one of observations.
    """
    require_columns(frame, NEEDS, "The notebook")
    data, scores_data = path.with_suffix(".parquet"), None
    write_table_file(frame, data)
    if scores is not None and len(scores):
        scores_data = path.with_name(f"{path.stem}-scores.parquet")
        write_table_file(scores, scores_data)
    notebook = new_notebook(  # type: ignore[no-untyped-call]
        cells=_cells(data.name, None if scores_data is None else scores_data.name),
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.validate(notebook)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def _cells(data: str, scores_data: str | None) -> list[nbformat.NotebookNode]:
    parameters = _cell("parameters", f"data = {data!r}\nscores_data = {scores_data!r}")
    parameters.metadata["tags"] = ["parameters"]
    cells = [_cell(name, source) for name, source in _CELLS]
    return [cells[0], parameters, *cells[1:]]


def _cell(name: str, source: str) -> nbformat.NotebookNode:
    make = new_markdown_cell if source.startswith("#") else new_code_cell
    cell: nbformat.NotebookNode = make(source, id=name)  # type: ignore[no-untyped-call]
    return cell

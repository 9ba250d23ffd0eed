"""Cells as rows: what each execution of a notebook cell cost."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from research_kit.traces import cells_df
from research_kit.traces.rollup import roll_up_cells
from research_kit.traces.schema import CELLS


def cell(number: int, **changes: str) -> dict[str, Any]:
    """Return the metadata of one cell, as a server sends it."""
    source = {"source_hash": f"hash{number}", "notebook": "study.ipynb"}
    return {"metadata": {"execution_count": number, "cell_id": f"id{number}", **source, **changes}}


def test_a_cell_sums_up_its_trace_and_its_threads(frame_of, make_row, make_call) -> None:
    """The calls inside a cell's root and in its threads are one row, with the root's times and outcome."""
    inside = cell(3)
    frame = frame_of(
        [
            make_row(0, name="cell [3]", traceName="cell [3]", **cell(3, outcome="success")),
            make_call(1, cost=0.25, parentObservationId=f"{0:016x}", **inside),
            make_call(9, cost=0.5, traceId="trace-2", **cell(3, cell_trace_id="trace-1")),
            make_call(10, cost=None, traceId="trace-3"),
        ]
    )
    [row] = roll_up_cells(frame).to_dict("records")
    assert (row["trace_id"], row["name"], row["cell_id"]) == ("trace-1", "cell [3]", "id3")
    assert (row["execution_count"], row["notebook"], row["source_hash"]) == (3, "study.ipynb", "hash3")
    assert (row["cost_usd"], row["generation_count"], row["unpriced_count"]) == (0.75, 2, 0)
    assert (row["outcome"], row["latency_s"]) == ("success", 0.5)


def test_each_execution_is_a_row(frame_of, make_row) -> None:
    """The same cell run twice gives two rows; a failed one says what went wrong."""
    failed = {"level": "ERROR", "statusMessage": "ValueError: no"}
    frame = frame_of(
        [
            make_row(0, name="cell [1]", **failed, **cell(1, outcome="error")),
            make_row(1, name="cell [2]", traceId="trace-2", **cell(2, outcome="success")),
        ]
    )
    cells = roll_up_cells(frame)
    assert cells["error"].tolist()[0] == "ValueError: no"
    assert pd.isna(cells["error"].tolist()[1])
    assert cells["error_count"].tolist() == [1, 0]


def test_a_cell_whose_root_is_missing_has_known_times(frame_of, make_row) -> None:
    """While the cell's root has not arrived, its row has the times of what did."""
    frame = frame_of([make_row(4, traceId="trace-9", **cell(4, cell_trace_id="trace-1"))])
    [row] = roll_up_cells(frame).to_dict("records")
    assert (row["trace_id"], row["latency_s"]) == ("trace-1", 0.5)
    assert pd.isna(row["outcome"])


@pytest.mark.parametrize("is_empty", [True, False], ids=["no rows", "no cells"])
def test_without_cells_the_frame_is_empty_and_typed(is_empty: bool, fake_server, open_fake, make_row) -> None:
    """Without a cell the columns and dtypes are the same."""
    server = fake_server([] if is_empty else [make_row(0, name="chat")])
    frame = cells_df("*", reader=open_fake(server))
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        column.name: column.dtype for column in CELLS
    }
    assert frame.empty

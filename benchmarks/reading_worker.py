"""A process that reads, and prints how much memory that took at most: ``frame`` or ``stream``."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from research_kit.traces import TraceReader, iter_tables, observations_df


def main() -> None:
    """Print the peak in multiples of the frame's own memory, or in MB."""
    what, base_url, count, folder = sys.argv[1:]
    measure: Callable[[TraceReader, str, Path], float] = {"frame": _frame, "stream": _stream}[what]
    with TraceReader(base_url, "pk-lf-bench", "sk-lf-bench") as reader:
        observations_df("rows-100", reader=reader)  # first use loads libraries
        sys.stdout.write(f"{measure(reader, f'rows-{count}', Path(folder))}\n")


def _frame(reader: TraceReader, session_id: str, folder: Path) -> float:
    before_bytes = _peak_bytes()
    frame: pd.DataFrame = observations_df(session_id, reader=reader)
    return (_peak_bytes() - before_bytes) / float(frame.memory_usage(deep=False).sum())


def _stream(reader: TraceReader, session_id: str, folder: Path) -> float:
    writer: pq.ParquetWriter | None = None
    for table in iter_tables(session_id, reader=reader):
        writer = writer or pq.ParquetWriter(folder / "observations.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return _peak_bytes() / 1e6


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

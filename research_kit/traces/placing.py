"""Where each observation stands in its trace: depth, path and parent, and the order of the rows.

Owns the columns that depend on other rows; works on whole columns, without a step per row. Invariant: a row
is there once, and its depth and path are missing when an ancestor is not among the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from research_kit.traces.tables import MEMORY_POOL

__all__ = ["place", "with_values_of"]

_Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


def place(table: pa.Table) -> pa.Table:
    """Return the rows in order of start, parents first, with ``depth``, ``path`` and ``parent_name``."""
    table = _without_repeats(table)
    parents = _parents(table)
    names = table["name"].combine_chunks()
    depths, paths = _descend(table, names, parents)
    placed = (
        table.append_column("depth", pa.array(depths, mask=depths < 0, type=pa.int64()))
        .append_column("path", paths)
        .append_column("parent_name", names.take(_nullable(parents)))
    )
    rank = pa.array(np.maximum(depths, 0))
    order = pc.sort_indices(
        placed.append_column("rank", rank),
        sort_keys=[("start_time", "ascending"), ("rank", "ascending"), ("observation_id", "ascending")],
    )
    # What comes from the cache is in order already, and moving long texts is what takes time here.
    if (np.diff(order.to_numpy().astype(np.int64)) > 0).all():
        return placed
    names, columns = placed.column_names, placed.columns
    del table, placed
    return pa.table(_taken(columns, order), names=names)


def _taken(columns: list[Any], order: pa.Array) -> list[Any]:
    """Return the columns in another order, and let go of each before the next: two of all are never there."""
    taken = []
    columns.reverse()
    while columns:
        taken.append(pc.take(columns.pop(), order, memory_pool=MEMORY_POOL))
    return taken


def with_values_of(table: pa.Table, other: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return ``table`` with the values that ``other`` has of the same rows in the columns ``names``."""
    found = pc.index_in(_row_keys(table), value_set=_row_keys(other).combine_chunks())
    is_found = pc.is_valid(found)
    for name in names:
        values = pc.if_else(is_found, other[name].combine_chunks().take(found), table[name])
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def _without_repeats(table: pa.Table) -> pa.Table:
    """Keep one of each (trace, id, start), which is what makes a row for the server.

    Parts of a range that are read side by side overlap by a millisecond.
    """
    # Few rows begin in the same moment, and only their keys, which are long texts, need be compared.
    shared = _at_shared_times(table["start_time"])
    if not len(shared):
        return table
    keys = _row_keys(table.select(["trace_id", "observation_id", "start_time"]).take(pa.array(shared)))
    codes = pc.dictionary_encode(keys).combine_chunks()
    if len(codes.dictionary) == len(shared):
        return table
    _, firsts = np.unique(codes.indices.to_numpy(zero_copy_only=False), return_index=True)
    is_kept = np.ones(table.num_rows, dtype=bool)
    is_kept[shared] = False
    is_kept[shared[firsts]] = True
    return table.filter(pa.array(is_kept))


def _at_shared_times(start_times: Any) -> _Positions:
    """Return the rows that do not begin alone."""
    times = pc.fill_null(pc.cast(start_times, pa.int64()), 0).to_numpy()
    order = np.argsort(times, kind="stable")
    is_same = np.diff(times[order]) == 0
    return np.unique(np.concatenate([order[1:][is_same], order[:-1][is_same]]))


def _row_keys(table: pa.Table) -> Any:
    starts = pc.cast(pc.cast(table["start_time"], pa.int64()), pa.large_string())
    return _joined(table["trace_id"], table["observation_id"], starts)


def _joined(*columns: Any) -> Any:
    filled = [pc.fill_null(column, "") for column in columns]
    return pc.binary_join_element_wise(*filled, pa.scalar(" ", pa.large_string()))


def _parents(table: pa.Table) -> _Positions:
    """Return for each row the position of its parent's row, -1 without one."""
    keys = _joined(table["trace_id"], table["observation_id"]).combine_chunks()
    wanted = _joined(table["trace_id"], table["parent_observation_id"])
    found = pc.fill_null(pc.index_in(wanted, value_set=keys), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)


def _descend(table: pa.Table, names: Any, parents: _Positions) -> tuple[_Positions, Any]:
    """Return depths (-1 when unknown) and paths, one level of the trees after another."""
    is_root = pc.fill_null(table["is_root"], False).to_numpy()
    depths: _Positions = np.where(is_root, 0, -1).astype(np.int64)
    names = pc.fill_null(names, "")
    paths = pc.if_else(pa.array(is_root, type=pa.bool_()), names, pa.scalar(None, pa.large_string()))
    while True:
        is_next = (depths < 0) & (parents >= 0) & (depths[parents] >= 0) if len(parents) else is_root
        rows = np.flatnonzero(is_next & (depths < 0))
        if not len(rows):
            return depths, paths
        above = parents[rows]
        depths[rows] = depths[above] + 1
        longer = pc.binary_join_element_wise(
            paths.take(pa.array(above)), names.take(pa.array(rows)), pa.scalar(" > ", pa.large_string())
        )
        mask = np.zeros(len(depths), dtype=bool)
        mask[rows] = True
        paths = pc.replace_with_mask(paths, pa.array(mask), longer)


def _nullable(positions: _Positions) -> pa.Array:
    return pa.array(positions, mask=positions < 0, type=pa.int64())

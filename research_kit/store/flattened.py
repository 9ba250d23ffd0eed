"""Values that clients spread over attribute names, put together again.

Owns the rule how ``prefix.0.role`` and ``prefix.0.content`` become ``[{"role": ..., "content": ...}]``.
Invariant: no name makes it build more than a bounded number of places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["unflattened"]

_INDEX = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_MAX_DEPTH = 64
_MAX_PLACES = 10_001

_Tree = dict[str, Any]


def unflattened(attributes: Mapping[str, Any], prefix: str) -> Any:
    """Rebuild what was spread over the names below ``prefix``, unless it is under the plain name."""
    if attributes.get(prefix):
        return attributes[prefix]
    start = f"{prefix}."
    paths = {
        tuple(key[len(start) :].split(".")): value
        for key, value in attributes.items()
        if key.startswith(start)
    }
    usable = {path: value for path, value in paths.items() if len(path) <= _MAX_DEPTH and all(path)}
    is_list = any(len(path) > 1 and _INDEX.fullmatch(path[0]) for path in usable)
    tree: _Tree = {}
    for path, value in usable.items():
        if not is_list or _INDEX.fullmatch(path[0]):
            _plant(tree, path, value)
    return _grown(tree, is_list=is_list, places=[_MAX_PLACES])


class _Branch(dict[str, Any]):
    """A place that holds others; values that are dicts themselves are none."""


def _plant(tree: _Tree, path: tuple[str, ...], value: Any) -> None:
    """Put a value at its place; what is there already stays."""
    for step in path[:-1]:
        below = tree.setdefault(step, _Branch())
        if not isinstance(below, _Branch):
            return
        tree = below
    if not isinstance(tree.get(path[-1]), _Branch):
        tree[path[-1]] = value


def _grown(tree: _Tree, *, is_list: bool, places: list[int]) -> Any:
    values = {
        key: _grown(value, is_list=_is_indexed(value), places=places) if isinstance(value, _Branch) else value
        for key, value in tree.items()
    }
    if not is_list:
        return values
    by_index = {int(key): value for key, value in values.items() if int(key) < places[0]}
    length = max(by_index, default=-1) + 1
    places[0] -= length
    return [by_index.get(index) for index in range(length)]


def _is_indexed(branch: _Branch) -> bool:
    return all(_INDEX.fullmatch(key) for key in branch)

"""Words about any object of the notebook.

Owns name of the class, size and a short text. Invariant: no code of the object's class is run, and the
words are short and quickly found, whatever the object is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

__all__ = ["class_dict", "class_name", "class_order", "short_text", "size_text"]

_MAX_TEXT = 300
_MAX_PARTS = 5
_MAX_KEYS = 10
_MAX_DEPTH = 2
_MAX_BITS = 10_000
_CONTAINERS = (str, bytes, list, tuple, dict, set, frozenset, range)
# Read as Python itself reads them: a metaclass may have properties of these names.
_NAME = type.__dict__["__qualname__"]
_ORDER = type.__dict__["__mro__"]
_DICT = type.__dict__["__dict__"]


def class_order(kind: type) -> tuple[type, ...]:
    """Return the class and what it inherits from."""
    order: tuple[type, ...] = _ORDER.__get__(kind)
    return order


def class_dict(kind: type) -> dict[str, Any]:
    """Return what the class itself defines."""
    return dict(_DICT.__get__(kind))


def class_name(value: object) -> str:
    """Return the name of the value's class, without the functions that it may stand in."""
    name: str = _NAME.__get__(type(value))
    return name.rpartition(".")[2][:_MAX_TEXT]


def size_text(value: object) -> str:
    """Return the size of an array or of one of Python's own containers; else an empty text."""
    kind = type(value)
    if kind in _CONTAINERS:
        return f"length {len(value)}"  # type: ignore[arg-type]
    shape = next((read(value) for owner, read in _shape_readers() if kind is owner), None)
    return "" if shape is None else f"shape {' x '.join(str(part) for part in shape) or 'scalar'}"


def short_text(value: object, *, depth: int = 0) -> str:
    """Return a short text of the value; of a container the first of what is in it."""
    text = _text(value, depth)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _text(value: object, depth: int) -> str:
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value[:_MAX_TEXT])  # type: ignore[index]
    if kind is int:
        return _integer_text(value)  # type: ignore[arg-type]
    if value is None or kind in (bool, float, complex, range):
        return repr(value)
    if kind in (list, tuple, set, frozenset, dict) and depth <= _MAX_DEPTH:
        return _container_text(value, depth)
    module = class_dict(kind).get("__module__")
    where = f"{module}." if type(module) is str and module != "builtins" else ""
    return f"an object of {where}{_NAME.__get__(kind)}"


def _container_text(value: Any, depth: int) -> str:
    is_dict = type(value) is dict
    try:
        first = list(islice(value, _MAX_KEYS if is_dict else _MAX_PARTS))
    except RuntimeError:
        return "it is being changed"
    shown = ", ".join(short_text(part, depth=depth + 1) for part in first)
    return f"first {'keys' if is_dict else 'values'}: {shown}"


def _integer_text(value: int) -> str:
    # Python refuses to write very long ones.
    return repr(value) if value.bit_length() < _MAX_BITS else f"an integer of {value.bit_length()} bits"


def _shape_readers() -> list[tuple[type, Callable[[Any], tuple[int, ...]]]]:
    """Return the array classes whose shape costs nothing, as far as they have been imported."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    arrays = [getattr(numpy, "ndarray", None), getattr(pandas, "Series", None)]
    return [(owner, lambda value: value.shape) for owner in arrays if isinstance(owner, type)]

"""Values of DSPy calls as JSON text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_json", "call_inputs", "in_short", "is_finish_tool"]

# Deeper than any message is.
_MAX_DEPTH = 24
_MAX_INT_BITS = 4096


def as_json(value: Any) -> str:
    """Return ``value`` as JSON text; what JSON does not know is shown as its text."""
    return json.dumps(_plain(value, ()), ensure_ascii=False)


def is_finish_tool(tool: Any) -> bool:
    """Say whether a tool is the one with which ``dspy.ReAct`` says that it is done: nothing is called."""
    return getattr(getattr(tool, "func", None), "__module__", None) == "dspy.predict.react"


def call_inputs(inputs: Mapping[str, Any]) -> Any:
    """Return what a module or tool was called with: its keyword arguments, and positional ones if any."""
    args, kwargs = inputs.get("args") or (), inputs.get("kwargs")
    if not isinstance(kwargs, Mapping):
        return dict(inputs)
    return {**kwargs, "args": list(args)} if args else dict(kwargs)


def in_short(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs with programs and functions by name and data sets by size, as of an optimiser's run."""
    return {key: _short(value) for key, value in call_inputs(inputs).items() if value is not None}


def _short(value: Any) -> Any:
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return in_short(value)
    if isinstance(value, Sequence):
        return f"{len(value)} items"
    return str(getattr(value, "__name__", type(value).__name__))


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if id(value) in within or len(within) == _MAX_DEPTH:
        return "…"
    try:
        return _plain_object(value, (*within, id(value)))
    except Exception as error:  # noqa: BLE001 - a value may raise anything when it is looked at
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"


def _plain_object(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, within) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [_plain(item, within) for item in value]
    for method in ("model_dump", "toDict"):  # pydantic models; DSPy predictions and examples
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return _plain(convert(), within)
    return str(value)


def _number(value: int | float) -> Any:
    # Not every reader of JSON takes NaN, and Python itself refuses to write very long numbers.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if not isinstance(value, int) or value.bit_length() <= _MAX_INT_BITS else f"{value:#x}"

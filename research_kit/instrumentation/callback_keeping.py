"""Keeping our callback when a researcher sets callbacks of their own in DSPy.

Owns wrappers around DSPy's `configure` and `context`, which replace the list of callbacks. Invariant: while
DSPy is not observed they only pass the call on.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import dspy
from wrapt import wrap_function_wrapper

__all__ = ["keep_callback"]

_lock = Lock()
_is_kept = False


def keep_callback(get_callback: Callable[[], Any]) -> None:
    """Put the wrappers in place; repeated calls change nothing.

    Args:
        get_callback: Returns our callback; None while DSPy is not observed.
    """
    global _is_kept
    with _lock:
        if _is_kept:
            return
        _is_kept = True

    def configure(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        callback, result = get_callback(), wrapped(*args, **kwargs)
        # The very list that was given, because its owner may go on adding to it.
        given = kwargs.get("callbacks")
        if callback is not None and isinstance(given, list) and callback not in given:
            given.append(callback)
        return result

    def context(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        callback, given = get_callback(), kwargs.get("callbacks")
        if callback is not None and isinstance(given, list) and callback not in given:
            kwargs = {**kwargs, "callbacks": [*given, callback]}
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(type(dspy.settings), "configure", configure)
    wrap_function_wrapper(type(dspy.settings), "context", context)
    # DSPy's short names are the methods as they were bound when it was imported.
    dspy.configure, dspy.context = dspy.settings.configure, dspy.settings.context

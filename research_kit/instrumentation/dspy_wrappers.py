"""Observing the parts of DSPy that call no callbacks: parallel runs, embedders and embedding search.

Owns wrappers around public methods of DSPy's classes. Invariant: without our callback in DSPy's settings a
wrapper only passes the call on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any

import dspy
from wrapt import wrap_function_wrapper

from research_kit.instrumentation.dspy_callback import ObservationCallback

__all__ = ["wrap_dspy"]

_lock = Lock()
_is_wrapped = False


def wrap_dspy() -> None:
    """Put the wrappers in place; repeated calls change nothing."""
    global _is_wrapped
    with _lock:
        if _is_wrapped:
            return
        _is_wrapped = True
    wrap_function_wrapper(dspy.Parallel, "forward", _run_parallel)
    wrap_function_wrapper(dspy.Embedder, "__call__", _embed)
    wrap_function_wrapper(dspy.Embedder, "acall", _aembed)
    wrap_function_wrapper(dspy.Embeddings, "__call__", _search)


def _callback() -> ObservationCallback | None:
    callbacks = dspy.settings.callbacks
    return next((callback for callback in callbacks if isinstance(callback, ObservationCallback)), None)


def _run_parallel(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    callback = _callback()
    if callback is None:
        return wrapped(*args, **kwargs)
    pairs = args[0] if args else kwargs.get("exec_pairs", ())
    with callback.observe(type(instance).__name__, "chain", {"call_count": len(pairs)}) as outcome:
        result = wrapped(*args, **kwargs)
        outcome.value = {"result_count": len(result[0] if instance.return_failed_examples else result)}
        return result


def _embed(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    callback = _callback()
    if callback is None:
        return wrapped(*args, **kwargs)
    name = _model_name(instance)
    with callback.observe(name, "embedding", _inputs(args, kwargs), model=name) as outcome:
        result = wrapped(*args, **kwargs)
        outcome.value = {"shape": list(result.shape)}
        return result


def _aembed(wrapped: Callable[..., Awaitable[Any]], instance: Any, args: Any, kwargs: Any) -> Awaitable[Any]:
    callback = _callback()
    if callback is None:
        return wrapped(*args, **kwargs)

    async def observed() -> Any:
        name = _model_name(instance)
        with callback.observe(name, "embedding", _inputs(args, kwargs), model=name) as outcome:
            result = await wrapped(*args, **kwargs)
            outcome.value = {"shape": list(result.shape)}
            return result

    return observed()


def _search(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    callback = _callback()
    if callback is None:
        return wrapped(*args, **kwargs)
    with callback.observe(type(instance).__name__, "retriever", _inputs(args, kwargs)) as outcome:
        outcome.value = result = wrapped(*args, **kwargs)
        return result


def _model_name(embedder: Any) -> str:
    model = embedder.model
    return model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))


def _inputs(args: Any, kwargs: Any) -> Any:
    return args[0] if args else kwargs.get("inputs", kwargs.get("query"))

"""The frames for code that runs in an event loop: ``await rk.aio.observations_df(...)``.

Owns the step into a thread and cancellation; arguments, results and errors are those of
`research_kit.traces.reads`.
Invariant: the loop is never blocked, and a cancelled read sends no further request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from research_kit.traces import reads
from research_kit.traces.transport import STOP

__all__ = [
    "cells_df",
    "generations_df",
    "messages_df",
    "observations_df",
    "scores_df",
    "sessions_df",
    "tool_calls_df",
    "traces_df",
    "wait_for",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _in_thread(function: Callable[_P, _T]) -> Callable[_P, Awaitable[_T]]:
    @wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        stop = threading.Event()
        token = STOP.set(stop)
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        finally:
            stop.set()
            STOP.reset(token)

    return call


cells_df = _in_thread(reads.cells_df)
generations_df = _in_thread(reads.generations_df)
messages_df = _in_thread(reads.messages_df)
observations_df = _in_thread(reads.observations_df)
scores_df = _in_thread(reads.scores_df)
sessions_df = _in_thread(reads.sessions_df)
tool_calls_df = _in_thread(reads.tool_calls_df)
traces_df = _in_thread(reads.traces_df)
wait_for = _in_thread(reads.wait_for)

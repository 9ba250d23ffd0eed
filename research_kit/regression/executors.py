"""Where notebooks are run: threads or processes of this machine, Dask, or ipyparallel.

Owns the making of executors by name; what runs on them is the same. Invariant: libraries of clusters are
imported only when they are named.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from research_kit._optional import require
from research_kit._slow_formats import defer_slow_formats
from research_kit.errors import ConfigError
from research_kit.plain_stream import guard_terminal
from research_kit.regression.ipyparallel_executor import connect_engines

__all__ = ["EXECUTORS", "executor_maker"]

EXECUTORS = ("threads", "processes", "dask", "ipyparallel")


def executor_maker(
    name: str, *, worker_count: int | None = None, address: str | None = None
) -> Callable[[], Executor]:
    """Return what makes an executor.

    Args:
        name: ``threads`` (the notebooks' kernels are processes of their own in any case), ``processes``,
            ``dask`` or ``ipyparallel``.
        worker_count: How many notebooks run side by side on this machine; None takes one per core.
        address: The scheduler of a Dask cluster (``tcp://...``), or the profile or connection file of an
            ipyparallel cluster. Without one, Dask starts a cluster on this machine, and ipyparallel takes the
            default profile.

    Raises:
        ConfigError: When the name is unknown, or the number cannot be used.
        MissingExtraError: When the library is not installed.
    """
    if worker_count is not None and worker_count < 1:
        raise ConfigError(f"The number of workers is {worker_count}; it must be at least 1.")
    count = worker_count or os.cpu_count() or 1
    if name == "threads":
        return lambda: ThreadPoolExecutor(count, thread_name_prefix="research-kit-run")
    if name == "processes":
        # A thread of this process may hold a lock that a forked child would wait for.
        context = multiprocessing.get_context("spawn")
        return lambda: ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)
    if name == "dask":
        distributed = require("distributed", extra="cluster", purpose="run notebooks on a Dask cluster")
        return lambda: _dask(distributed, address, count)
    if name == "ipyparallel":
        ipyparallel = require(
            "ipyparallel", extra="cluster", purpose="run notebooks on an ipyparallel cluster"
        )
        return lambda: connect_engines(ipyparallel, address)
    raise ConfigError(f"The executor {name!r} is unknown. Use one of: {', '.join(EXECUTORS)}.")


def _begin_worker() -> None:
    defer_slow_formats()
    guard_terminal()


class _OnClient(Executor):
    """An executor whose client is closed with it."""

    def __init__(self, executor: Executor, close: Callable[[], object]) -> None:
        self._executor = executor
        self._close = close

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait=wait)
        self._close()


def _dask(distributed: Any, address: str | None, count: int) -> Executor:
    options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
    client = distributed.Client(address) if address else distributed.Client(**options)
    # A run may write files: a result that Dask keeps for the same task would be wrong. A task whose worker
    # dies is run again once.
    return _OnClient(client.get_executor(pure=False, retries=1), client.close)

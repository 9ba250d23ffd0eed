"""The one thread on which research-kit's asynchronous work runs.

Owns a daemon thread named ``research-kit-loop`` with an asyncio loop, and the threads on which the loop lets
others wait; does not know what runs on them. Invariants: at most one loop per process, and a forked child
gets its own, never its parent's; and it holds as many threads at the end of a day as at its start.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from research_kit.errors import ResearchKitError

__all__ = ["AgentLoop", "agent_loop"]

T = TypeVar("T")

_EXIT_TIMEOUT_S = 2.0
# Each tool that asks the user holds one until it is answered, and language models need one for moments.
_WORKER_COUNT = 8


class AgentLoop:
    """An asyncio loop on a daemon thread that starts with the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """True while the thread is there to run coroutines."""
        return self._thread is not None and self._thread.is_alive()

    def is_current_thread(self) -> bool:
        """True on the loop's own thread, where blocking on the loop would never end."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Start the thread; does nothing when it already runs."""
        self._running_loop()

    def submit(
        self, coro: Coroutine[Any, Any, T], *, context: contextvars.Context | None = None
    ) -> concurrent.futures.Future[T]:
        """Run ``coro`` on the loop as a task.

        Args:
            coro: What to run.
            context: The context variables it sees; by default a copy of the caller's, so that spans
                opened inside become children of the caller's span.

        Returns:
            A future; cancelling it cancels the task.
        """
        loop = self._running_loop()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        run_in = contextvars.copy_context() if context is None else context

        def start_task() -> None:
            if future.cancelled():
                coro.close()
                return
            task = loop.create_task(coro, context=run_in)
            future.add_done_callback(lambda done: _cancel_task(loop, task, done))
            task.add_done_callback(lambda done: _settle(future, done))

        loop.call_soon_threadsafe(start_task)
        return future

    def run(self, coro: Coroutine[Any, Any, T], *, timeout_s: float | None = None) -> T:
        """Run ``coro`` on the loop and wait for its result.

        Raises:
            ResearchKitError: When called on the loop's own thread, where it could only wait for itself.
            TimeoutError: When there is no result after ``timeout_s`` seconds; the task is cancelled.
        """
        if self.is_current_thread():
            coro.close()
            raise ResearchKitError(
                f"Cannot wait for {coro!r} on the agent loop's own thread: it would wait for itself. Await "
                "the asynchronous form instead."
            )
        future = self.submit(coro)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def close(self, *, timeout_s: float = _EXIT_TIMEOUT_S) -> None:
        """Cancel what runs, stop the thread, and wait at most ``timeout_s`` seconds for both."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(lambda: loop.create_task(_drain(timeout_s)))
        thread.join(timeout_s)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or not self.is_running:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(_started_workers())
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="research-kit-loop", daemon=True
                )
                self._thread.start()
            return self._loop


def agent_loop() -> AgentLoop:
    """Return the process's loop; the first call creates it."""
    with _holder.lock:
        if _holder.loop is None:
            _holder.loop = AgentLoop()
            atexit.register(_holder.loop.close)
        return _holder.loop


class _Holder:
    """The one place where the process's loop is kept."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        # A new lock too: another thread of the parent may have held the old one at the fork.
        self.lock = threading.Lock()
        self.loop: AgentLoop | None = None


_holder = _Holder()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holder.reset)


def _started_workers() -> concurrent.futures.ThreadPoolExecutor:
    """Return a pool whose threads have all started; else it would add them for hours, when two tasks meet."""
    pool = concurrent.futures.ThreadPoolExecutor(_WORKER_COUNT, thread_name_prefix="research-kit-worker")
    all_here = threading.Barrier(_WORKER_COUNT)
    for _ in range(_WORKER_COUNT):
        pool.submit(all_here.wait)
    return pool


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _drain(timeout_s: float) -> None:
    """Cancel every other task, give them most of the time to clean up, and stop the loop."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s * 0.9)
    await loop.shutdown_asyncgens()
    loop.stop()


def _cancel_task(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[T], future: concurrent.futures.Future[T]
) -> None:
    if future.cancelled() and not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


def _settle(future: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())

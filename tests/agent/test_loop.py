"""The agent loop: where coroutines run, with which context, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest

from research_kit.agent.loop import AgentLoop, agent_loop
from research_kit.errors import ResearchKitError

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def thread_name() -> str:
    return threading.current_thread().name


def test_coroutines_run_on_the_named_thread() -> None:
    """Every coroutine runs on the one thread, which is a daemon."""
    loop = agent_loop()
    assert loop.run(thread_name()) == loop.submit(thread_name()).result(5) == "research-kit-loop"
    assert agent_loop() is loop
    thread = next(thread for thread in threading.enumerate() if thread.name == "research-kit-loop")
    assert thread.daemon


def test_start_twice_is_one_thread() -> None:
    """Starting again does nothing."""
    loop = AgentLoop()
    before = threading.active_count()
    loop.start()
    started = threading.active_count()
    assert started > before
    loop.start()
    assert threading.active_count() == started
    loop.close()
    assert not loop.is_running


def test_loop_holds_as_many_threads_at_the_end_as_at_the_start() -> None:
    """Work that leaves the loop for a moment, a thousand times, also at the same time, adds no thread."""

    async def leave_often() -> None:
        for count in [1] * 500 + [5] * 100:
            await asyncio.gather(*[asyncio.to_thread(time.perf_counter) for _ in range(count)])

    loop = AgentLoop()
    loop.start()
    before = threading.active_count()
    loop.run(leave_often())
    assert threading.active_count() == before
    loop.close()


def test_submit_keeps_the_callers_context() -> None:
    """A coroutine sees the context variables of whoever submitted it, and changes none of them."""

    async def read_and_change() -> str:
        seen = colour.get()
        colour.set("changed")
        return seen

    token = colour.set("red")
    assert agent_loop().run(read_and_change()) == "red"
    assert colour.get() == "red"
    other = contextvars.Context()
    assert agent_loop().submit(read_and_change(), context=other).result(5) == "none"
    colour.reset(token)


def test_cancelling_the_future_cancels_the_task() -> None:
    """A cancelled future ends its coroutine."""
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    future = agent_loop().submit(wait())
    assert started.wait(5)
    assert future.cancel()
    assert cancelled.wait(5)


def test_errors_and_timeouts_reach_the_caller() -> None:
    """What a coroutine raises is raised to the caller, and waiting ends with the timeout."""

    async def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        agent_loop().run(fail())
    with pytest.raises(TimeoutError):
        agent_loop().run(asyncio.sleep(60), timeout_s=0.05)


def test_waiting_on_the_own_thread_is_refused() -> None:
    """Blocking the loop on itself is an error instead of a hang."""

    async def misuse() -> None:
        agent_loop().run(thread_name())

    with pytest.raises(ResearchKitError, match="own thread"):
        agent_loop().run(misuse())


def test_close_cancels_and_restarts() -> None:
    """Closing cancels what runs within its deadline; the next coroutine starts a new thread."""
    loop = AgentLoop()
    future = loop.submit(asyncio.Event().wait())
    started = time.monotonic()
    loop.close(timeout_s=2)
    assert time.monotonic() - started < 2.5
    assert future.cancelled()
    assert loop.run(thread_name()) == "research-kit-loop"
    loop.close()


def test_forked_child_has_its_own_loop() -> None:
    """After a fork the child starts a loop of its own instead of waiting for its parent's."""
    code = """
import os
from research_kit.agent.loop import agent_loop
async def pid(): return os.getpid()
assert agent_loop().run(pid()) == os.getpid()
child = os.fork()
if child == 0:
    os._exit(0 if agent_loop().run(pid(), timeout_s=10) == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
assert agent_loop().run(pid()) == os.getpid()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_exit_is_bounded_by_a_deadline() -> None:
    """A coroutine that refuses to be cancelled does not keep the process alive."""
    code = """
import asyncio
from research_kit.agent.loop import agent_loop
async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
agent_loop().submit(stubborn())
"""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - started < 30

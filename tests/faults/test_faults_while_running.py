"""A kernel that runs on while its server misbehaves: nothing shown, nothing lost, nothing twice."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from faults import FAULTS, SLOW
from kernels import DEADLINE_S

MADE_COUNT = 20


def flush_and_check(kernel: Any, place: Any, session_id: str, count: int) -> None:
    assert kernel.ask("rk.flush(25)")
    status = kernel.status()
    assert (status["state"], status["pending_count"]) == ("connected", 0)
    assert (status["lost_count"], status["refused_count"], status["faults"]) == (0, 0, [])
    assert place.names(session_id).count("work") == count
    kernel.assert_silent()


def new_session(kernel: Any) -> str:
    kernel.run("_ = rk.new_session()")
    return kernel.ask("rk.current_session_id()")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.faults_long] if name in SLOW else []) for name in FAULTS],
)
def test_fault_holds_back_until_it_is_over(name: str, module_kernel: Any, place: Any) -> None:
    """While the fault lasts spans wait, the status says why; when it is over each arrives exactly once."""
    fault, kernel = FAULTS[name], module_kernel
    session_id = new_session(kernel)
    place.server.misbehave(fault.name, **fault.options)
    kernel.run(f"work({MADE_COUNT})")
    status = kernel.wait_for_state(fault.state)
    assert re.search(fault.reason, status["reason"]), status["reason"]
    assert status["pending_count"] >= MADE_COUNT
    assert status["since"] is not None
    place.server.heal()
    flush_and_check(kernel, place, session_id, MADE_COUNT)
    assert kernel.status()["reason"] == ""


def test_bodies_that_are_too_large_are_split(module_kernel: Any, place: Any) -> None:
    """A server that refuses more than 8 spans at once gets all of them, and none is set aside."""
    session_id = new_session(module_kernel)
    place.server.misbehave("too_large", max_spans=8)
    module_kernel.run("work(50)")
    flush_and_check(module_kernel, place, session_id, 50)


def test_slow_server_is_waited_for_aside_of_the_cells(module_kernel: Any, place: Any) -> None:
    """While a server takes three seconds per request, cells end before it has answered."""
    session_id = new_session(module_kernel)
    place.server.misbehave("slow", delay_s=3)
    module_kernel.run(f"work({MADE_COUNT})")
    assert module_kernel.status()["pending_count"] >= MADE_COUNT
    flush_and_check(module_kernel, place, session_id, MADE_COUNT)


def test_retry_after_is_honoured(module_kernel: Any, place: Any) -> None:
    """Nothing is sent before the time that the server asked for is over, not even by a flush."""
    session_id = new_session(module_kernel)
    place.server.misbehave("status", status=429, headers={"Retry-After": "3"})
    module_kernel.run(f"work({MADE_COUNT})")
    module_kernel.wait_for_state("buffering")
    assert not module_kernel.ask("rk.flush(0.2)")
    deadline = time.monotonic() + DEADLINE_S
    while len(posts := place.server.requests()) < 2:
        assert time.monotonic() < deadline, posts
        time.sleep(0.1)
    assert posts[1]["at_s"] - posts[0]["at_s"] >= 3
    place.server.heal()
    flush_and_check(module_kernel, place, session_id, MADE_COUNT)


def test_fault_comes_back_in_the_midst(module_kernel: Any, place: Any) -> None:
    """Faults that follow one another, with spans ending all the time, lose and double nothing."""
    session_id = new_session(module_kernel)
    for name in ("503", "answer cut", "refused", "garbage"):
        place.server.misbehave(FAULTS[name].name, **FAULTS[name].options)
        module_kernel.run("work(10)")
        module_kernel.ask("rk.flush(0.3)")
        place.server.heal()
        module_kernel.run("work(10)")
    flush_and_check(module_kernel, place, session_id, 80)


def test_address_that_cannot_be_found(new_kernel: Any, place: Any) -> None:
    """Hosts that do not exist or cannot be named hold back; the corrected address gets everything."""
    kernel = new_kernel(LANGFUSE_BASE_URL="https://langfuse.invalid")
    session_id = kernel.load()
    for address in ("https://langfuse.invalid", "https://langfuse..invalid"):
        kernel.run(f"os.environ['LANGFUSE_BASE_URL'] = {address!r}\nwork({MADE_COUNT})")
        assert not kernel.ask("rk.flush(0.5)")
        status = kernel.wait_for_state("buffering")
        assert "cannot be reached" in status["reason"]
    kernel.run(f"os.environ['LANGFUSE_BASE_URL'] = {place.server.base_url!r}")
    flush_and_check(kernel, place, session_id, 2 * MADE_COUNT)

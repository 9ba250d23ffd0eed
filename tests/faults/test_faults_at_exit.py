"""A kernel that ends while its server misbehaves: it ends by itself, and the next one delivers."""

from __future__ import annotations

from typing import Any

import pytest
from faults import FAULTS

MADE_COUNT = 20
# The others end in the same ways: with no answer at all, and with one that makes them wait.
SHORT = ("blackholed", "401")
IN_TURN = [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.faults_long]) for name in FAULTS]


def end_while(fault_name: str, kernel: Any, place: Any) -> str:
    """Make spans while the fault lasts, end the kernel, and return the session."""
    fault = FAULTS[fault_name]
    place.server.misbehave(fault.name, **fault.options)
    session_id = kernel.load()
    kernel.run(f"work({MADE_COUNT})")
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    return session_id


@pytest.mark.parametrize("name", IN_TURN)
def test_kernel_ends_by_itself_and_its_spans_arrive(name: str, new_kernel: Any, place: Any) -> None:
    """The exit code is 0, and `research-kit deliver` sends each span exactly once."""
    session_id = end_while(name, new_kernel(), place)
    place.server.heal()
    assert " 0 waiting, 0 refused" in place.deliver()
    assert place.names(session_id).count("work") == MADE_COUNT
    assert place.spool_files() == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.faults_long) for name in FAULTS if name not in SHORT],
)
def test_next_kernel_delivers(name: str, new_kernel: Any, place: Any) -> None:
    """What a kernel left is sent by the next one with the same keys as soon as it traces something."""
    session_id = end_while(name, new_kernel(), place)
    place.server.heal()
    later = new_kernel()
    later.load()
    later.run("work(1)")
    assert later.ask("rk.flush(25)")
    assert place.names(session_id).count("work") == MADE_COUNT
    later.assert_silent()


@pytest.mark.faults_long
def test_kernel_ends_when_the_address_cannot_be_found(new_kernel: Any, place: Any) -> None:
    """With a host that does not exist the kernel ends by itself and keeps its spans."""
    kernel = new_kernel(LANGFUSE_BASE_URL="https://langfuse.invalid")
    kernel.load()
    kernel.run(f"work({MADE_COUNT})")
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    [path] = place.spool_files()
    assert path.read_bytes().count(b"session.id") >= MADE_COUNT


@pytest.mark.faults_long
def test_slow_server_at_exit(new_kernel: Any, place: Any) -> None:
    """A server slower than the exit gets spans a second time at most, and the store holds each once."""
    place.server.misbehave("slow", delay_s=3)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run(f"work({MADE_COUNT})")
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    place.server.heal()
    place.deliver()
    assert place.names(session_id).count("work") == MADE_COUNT

"""One observation on which the server fails: it is set aside and told, and everything else arrives."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kernels import DEADLINE_S

POISON = "poisonous"
PATIENT_S = 60.0


def command(place: Any, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("research-kit"), *arguments],
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout


def wait_until_aside(kernel: Any, count: int) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        status = kernel.status()
        if status["refused_count"] == count and status["pending_count"] == 0:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


@pytest.mark.parametrize("status", [500, pytest.param(503, marks=pytest.mark.faults_long)])
def test_entry_that_fails_alone_is_set_aside(status: int, new_kernel: Any, place: Any) -> None:
    """Those before and behind it arrive; status and commands say why; a command tries it again."""
    place.server.misbehave("poison", name=POISON, status=status)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run(f"work(30)\nwork(1, {POISON!r})\nwork(30)")
    wait_until_aside(kernel, 1)
    assert place.names(session_id).count("work") == 60
    assert "set aside: 1 observation; research-kit status --aside" in kernel.ask("str(rk.status())")
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25)")
    assert kernel.status()["state"] == "connected"
    listed = command(place, "status", "--aside")
    assert f"observation '{POISON}' of trace" in listed
    assert f"answered {status}" in listed
    assert "set aside: 1 entries" in command(place, "status")
    kernel.assert_silent()
    assert kernel.exit_by_itself() == 0
    place.server.heal()
    assert "1 delivered, 0 waiting, 0 refused" in command(place, "deliver", "--refused")
    assert place.names(session_id).count(POISON) == 1
    assert "nothing is set aside" in command(place, "status", "--aside")


def test_entry_of_an_ended_kernel_holds_up_no_other(new_kernel: Any, place: Any) -> None:
    """What a killed kernel left is delivered by the next one, around the entry on which the server fails."""
    place.server.misbehave("status", status=503)
    first = new_kernel()
    session_id = first.load()
    first.run(f"work(1, {POISON!r})\nwork(20)\nwork(1, {POISON!r})")
    first.wait_for_state("buffering")
    first.kill()
    place.server.misbehave("poison", name=POISON, status=500)
    later = new_kernel()
    later_id = later.load()
    later.run("work(3)")
    wait_until_aside(later, 2)
    assert (place.names(session_id).count("work"), place.names(later_id).count("work")) == (20, 3)
    assert later.exit_by_itself() == 0
    assert place.spool_files() == []
    assert "2 entries that were set aside are deleted" in command(place, "deliver", "--drop-refused")
    assert "nothing is set aside" in command(place, "status", "--aside")


def test_last_entry_of_all_is_set_aside_by_the_command(new_kernel: Any, place: Any) -> None:
    """`research-kit deliver` says what it does and ends, also when nothing but the entry waits."""
    place.server.misbehave("status", status=503)
    kernel = new_kernel()
    kernel.load()
    kernel.run(f"with rk.trace_span({POISON!r}):\n    pass")
    kernel.wait_for_state("buffering")
    kernel.kill()
    place.server.misbehave("poison", name=POISON, status=500)
    said = command(place, "deliver", "--timeout", str(PATIENT_S))
    assert "sending" in said.splitlines()[0]
    assert "the server fails on one entry alone" in said
    assert " 0 waiting, 1 refused" in said


def test_server_that_fails_on_everything_sets_nothing_aside(new_kernel: Any, place: Any) -> None:
    """Then it is away: all of it waits, and arrives when the server is well."""
    place.server.misbehave("status", status=500)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(20)")
    deadline = time.monotonic() + DEADLINE_S
    while len(place.server.requests()) < 8:
        assert time.monotonic() < deadline, place.server.requests()
        time.sleep(0.2)
        kernel.ask("rk.flush(0.2)")
    status = kernel.status()
    assert (status["state"], status["refused_count"], status["pending_count"] >= 20) == ("buffering", 0, True)
    place.server.heal()
    assert kernel.ask("rk.flush(25)")
    assert place.names(session_id).count("work") == 20
    kernel.assert_silent()

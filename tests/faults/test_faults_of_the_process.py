"""Kernels that are killed, restarted, forked, share a folder, or whose clock is set back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS
from kernels import DEADLINE_S

MADE_COUNT = 20
DIED = ("ERROR", "kernel died")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def misbehave(place: Any, name: str) -> None:
    place.server.misbehave(FAULTS[name].name, **FAULTS[name].options)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "503" else [pytest.mark.faults_long]) for name in FAULTS],
)
def test_killed_in_a_cell(name: str, new_kernel: Any, place: Any) -> None:
    """Spans that ended in the cell arrive once each; the cell itself arrives once, as an error."""
    misbehave(place, name)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.begin(f"work({MADE_COUNT})\nopen('made', 'w').close()\ntime.sleep(600)")
    wait_until((place.folder / "made").exists, "the cell did not come to its end")
    kernel.kill()
    place.server.heal()
    assert " 0 waiting, 0 refused" in place.deliver()
    rows = place.store.read(sessionId=session_id)
    died = [row for row in rows if (row["level"], row["statusMessage"]) == DIED]
    assert [row["name"] for row in rows].count("work") == MADE_COUNT
    assert len(died) == 1
    assert died[0]["name"].startswith("cell [")


def test_killed_between_the_end_of_a_span_and_its_sending(new_kernel: Any, place: Any) -> None:
    """Killed by the very cell whose spans have just ended, with a server that is well: each arrives once."""
    kernel = new_kernel()
    session_id = kernel.load()
    process = kernel.manager.provisioner.process
    kernel.begin(f"work({MADE_COUNT})\nos.kill(os.getpid(), 9)")
    wait_until(lambda: process.poll() is not None, "the kernel was not killed")
    kernel.kill()
    assert place.names(session_id) == []
    assert " 0 waiting, 0 refused" in place.deliver()
    assert place.names(session_id).count("work") == MADE_COUNT


@pytest.mark.parametrize(
    "name",
    ["taken silently", pytest.param("blackholed", marks=pytest.mark.faults_long)],
)
def test_killed_in_a_flush(name: str, new_kernel: Any, place: Any) -> None:
    """Killed while the server has the request, answered or not: each span is in the store exactly once."""
    misbehave(place, name)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run(f"work({MADE_COUNT})")
    kernel.begin("rk.flush(600)")
    wait_until(lambda: bool(place.server.requests()), "nothing was sent")
    if name == "taken silently":
        wait_until(lambda: any(post.get("taken") for post in place.server.requests()), "nothing was taken")
    kernel.kill()
    place.server.heal()
    assert " 0 waiting, 0 refused" in place.deliver()
    assert place.names(session_id).count("work") == MADE_COUNT


@pytest.mark.parametrize("now", [False, pytest.param(True, marks=pytest.mark.faults_long)])
def test_restarted_by_its_manager(now: bool, new_kernel: Any, place: Any) -> None:
    """After a restart, gentle or not, the kernel that follows delivers what the earlier one left."""
    misbehave(place, "503")
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run(f"work({MADE_COUNT})")
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=60)
    place.server.heal()
    later_session_id = kernel.load()
    assert later_session_id != session_id
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25)")
    assert place.names(session_id).count("work") == MADE_COUNT
    assert place.names(later_session_id).count("work") == 1
    kernel.assert_silent()


def test_two_kernels_share_a_folder(new_kernel: Any, place: Any) -> None:
    """Neither touches what the other one still writes; who is left delivers for the one that was killed."""
    misbehave(place, "401")
    first, second = new_kernel(), new_kernel()
    sessions = [first.load(), second.load()]
    for kernel in (first, second):
        kernel.run(f"work({MADE_COUNT})")
        kernel.wait_for_state("rejected")
    assert "0 delivered, 0 waiting" in place.deliver(timeout_s=1)
    assert len(place.spool_files()) == 2
    first.kill()
    place.server.heal()
    # At the same time, so that both try to take over the file of the killed one.
    command = [Path(sys.executable).with_name("research-kit"), "deliver"]
    with subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE, text=True) as other:
        assert second.ask("rk.flush(25)")
        shown, _ = other.communicate(timeout=60)
    assert " 0 waiting, 0 refused" in shown
    assert [place.names(session_id).count("work") for session_id in sessions] == [MADE_COUNT, MADE_COUNT]
    second.assert_silent()
    assert second.exit_by_itself() == 0
    assert place.spool_files() == []


# Python 3.12 and later warn of a fork in a process with threads, which every kernel is.
FORKS = """
import multiprocessing, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
work(5)
pid = os.fork()
if not pid:
    try:
        work(5, 'forked')
    finally:
        os._exit(0)
status = os.waitpid(pid, 0)[1]
child = multiprocessing.get_context('fork').Process(target=work, args=(5, 'multiprocessing'))
child.start()
child.join()
exit_codes = [status, child.exitcode]
work(5)
"""


def test_fork_in_a_kernel(new_kernel: Any, place: Any) -> None:
    """Forked children keep files of their own; those of the parent stay the parent's."""
    misbehave(place, "401")
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(10)")
    # By now it has taken over what processes before it left, so it does not look at its children's.
    kernel.wait_for_state("rejected")
    kernel.run(FORKS)
    assert kernel.ask("exit_codes") == [0, 0]
    place.server.heal()
    # The children are gone, the parent lives: what is delivered for the dead are the children's spans alone.
    assert "10 delivered, 0 waiting" in place.deliver()
    assert kernel.ask("rk.flush(25)")
    kernel.assert_silent()
    names = place.names(session_id)
    counts = [names.count(name) for name in ("work", "forked", "multiprocessing")]
    assert counts == [20, 5, 5]
    kernel.run("work(5, 'afterwards')")
    kernel.kill()
    assert " 0 waiting, 0 refused" in place.deliver()
    assert place.names(session_id).count("afterwards") == 5


# The clock as the libraries of this kernel see it; the clock of the machine stays as it is.
CLOCK = """
import time
machine_time, machine_time_ns, set_back_s = time.time, time.time_ns, 0
time.time = lambda: machine_time() - set_back_s
time.time_ns = lambda: machine_time_ns() - set_back_s * 10**9
"""


def test_clock_is_set_back(new_kernel: Any, place: Any) -> None:
    """When the clock goes back by a year spans arrive once each, and what failed is still tried again."""
    misbehave(place, "503")
    kernel = new_kernel()
    kernel.run(CLOCK)
    session_id = kernel.load()
    kernel.run("work(10)\nwith rk.trace_span('work'):\n    set_back_s = 365 * 86400\nwork(10)")
    kernel.wait_for_state("buffering")
    posts_count = len(place.server.requests())
    wait_until(lambda: len(place.server.requests()) > posts_count, "nothing was tried again")
    kernel.run(
        "from datetime import datetime\n"
        "span = rk.session.get_tracer().start_span('work', start_time=machine_time_ns() + 10**15)\n"
        "span.end(end_time=machine_time_ns())"
    )
    place.server.heal()
    assert kernel.ask("rk.flush(25)")
    kernel.assert_silent()
    assert place.names(session_id).count("work") == 22
    kernel.run("work(5, 'afterwards')\nset_back_s *= 2")
    assert kernel.exit_by_itself() == 0
    assert place.names(session_id).count("afterwards") == 5

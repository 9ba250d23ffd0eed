"""A fault at the very first contact, or in a fork, leaves no trace once it is over."""

from __future__ import annotations

from typing import Any


def test_reason_goes_away_when_the_server_is_back(new_kernel: Any, place: Any) -> None:
    """After a first contact that failed, no reason stays and the page is known once all is delivered."""
    place.server.misbehave("refused")
    kernel = new_kernel()
    kernel.load()
    kernel.run("work(1)")
    kernel.wait_for_state("buffering")
    place.server.heal()
    assert kernel.ask("rk.flush(25)")
    status = kernel.status()
    assert (status["state"], status["reason"]) == ("connected", "")


def test_garbage_at_the_first_contact_prints_nothing(new_kernel: Any, place: Any) -> None:
    """A page that answers 200 to the question for the project is no project, and prints nothing."""
    place.server.misbehave("garbage")
    kernel = new_kernel()
    kernel.load()
    kernel.run("work(1)")
    kernel.wait_for_state("buffering")
    kernel.assert_silent()


def test_malformed_address_at_the_first_contact_prints_nothing(new_kernel: Any, place: Any) -> None:
    """A host that cannot be named prints nothing."""
    kernel = new_kernel(LANGFUSE_BASE_URL="https://langfuse..invalid")
    kernel.load()
    kernel.run("work(1)")
    kernel.wait_for_state("buffering")
    kernel.assert_silent()


def test_forked_child_does_not_declare_the_cell_dead(new_kernel: Any, place: Any) -> None:
    """A cell that is well and forks arrives as it ended, although its child is gone."""
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25)")
    kernel.run(
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try:\n        work(1, 'forked')\n"
        "    finally:\n        os._exit(0)\n"
        "_ = os.waitpid(pid, 0)\n"
        "work(1)"
    )
    assert kernel.ask("rk.flush(25)")
    place.deliver()
    rows = place.store.read(sessionId=session_id)
    assert [row["name"] for row in rows if row["level"] == "ERROR"] == []


def test_address_corrected_between_two_kernels(new_kernel: Any, place: Any) -> None:
    """What waits for a mistyped address is delivered when the address is corrected."""
    kernel = new_kernel(LANGFUSE_BASE_URL="https://langfuse.invalid")
    session_id = kernel.load()
    kernel.run("work(3)")
    assert kernel.exit_by_itself() == 0
    place.deliver()
    assert place.names(session_id).count("work") == 3

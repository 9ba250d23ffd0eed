"""What is sent next: entries on which the server fails are found among others, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from research_kit.session.aside import drop_aside, list_aside
from research_kit.session.dispatch import Dispatch
from research_kit.session.sending import Answer
from research_kit.session.spool import Entry, Kind, Spool, SpoolKey
from research_kit.session.spools import Spools

TAKEN = Answer(outcome="taken")


class ScriptedServer:
    """Takes entries, but for those that hold ``poison``; nothing while it is down."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.requests: list[list[bytes]] = []
        self.is_down = False
        self.is_down_for_content = False
        self.failure = Answer(outcome="failed", reason="answered 500")

    def send(self, batch: Sequence[tuple[Entry, bytes]]) -> Answer:
        payloads = [payload for _, payload in batch]
        self.requests.append(payloads)
        if self.is_down or self.is_down_for_content or any(b"poison" in payload for payload in payloads):
            return self.failure
        if any(b"breaks us" in payload for payload in payloads):
            raise OverflowError("int too large to convert to float")
        self.taken += payloads
        return TAKEN

    def takes_nothing_much(self) -> bool:
        return not self.is_down


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


Fill = Callable[..., Spools]


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Fill]:
    """Make spools of payloads: of this process, and before it of one that is gone."""
    made: list[Spools] = []

    def start(own: Sequence[bytes], left: Sequence[bytes] = ()) -> Spools:
        folder = tmp_path / "spool"
        if left:
            gone = Spool.create(folder)
            for payload in left:
                gone.append(Kind.SPAN, payload, key=SpoolKey(bytes(16), bytes(8)))
            gone.close()
        made.append(Spools(folder))
        for payload in own:
            made[-1].own().append(Kind.SPAN, payload, key=SpoolKey(bytes(16), bytes(8)))
        made[-1].adopt()
        return made[-1]

    yield start
    for spools in made:
        spools.release()


def run(spools: Spools, server: ScriptedServer, *, most: int = 5000) -> float:
    """Take steps until nothing waits, and return how long their pauses would have been."""
    dispatch = Dispatch(spools, server, lambda *_: None, lambda: None)
    return run_on(dispatch, spools, most=most)


def run_on(dispatch: Dispatch, spools: Spools, *, most: int) -> float:
    waited_s, retry_s = 0.0, 0.5
    for _ in range(most):
        if not spools.waiting_count:
            break
        wait_s = dispatch.step()
        if wait_s is None:
            retry_s = 0.5
        else:
            waited_s += wait_s or retry_s
            retry_s = min(retry_s * 2, 30.0)
    return waited_s


def named(count: int, name: str = "good") -> list[bytes]:
    return [f"{name} {number}".encode() for number in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_every_good_entry_arrives_and_every_other_is_set_aside(
    seed: int, server: ScriptedServer, fill: Fill
) -> None:
    """Wherever and however many they are, in this spool or one that was left."""
    chance = random.Random(seed)
    payloads = named(chance.randrange(1, 400)) + named(chance.randrange(1, 40), "poison")
    chance.shuffle(payloads)
    cut = chance.randrange(len(payloads))
    spools = fill(payloads[:cut], payloads[cut:])
    run(spools, server)
    good = [payload for payload in payloads if payload.startswith(b"good")]
    assert sorted(server.taken) == sorted(good)
    assert (spools.waiting_count, spools.refused_count) == (0, len(payloads) - len(good))


@pytest.mark.parametrize("count", [1, 4, 30])
def test_those_at_the_head_hold_up_nothing(count: int, server: ScriptedServer, fill: Fill) -> None:
    """Many of them before the first good one cost seconds, not minutes."""
    spools = fill([*named(count, "poison"), *named(20)])
    waited_s = run(spools, server)
    assert (len(server.taken), spools.refused_count) == (20, count)
    assert waited_s < 30


def test_server_that_fails_on_everything_gets_everything_later(server: ScriptedServer, fill: Fill) -> None:
    """Nothing is set aside, whether it fails on an export without content or not, and requests are few."""
    spools = fill(named(300))
    dispatch = Dispatch(spools, server, lambda *_: None, lambda: None)
    for mode in ("is_down", "is_down_for_content"):
        setattr(server, mode, True)
        waited_s = run_on(dispatch, spools, most=60)
        assert (spools.waiting_count, spools.refused_count) == (300, 0)
        assert waited_s > 600
        setattr(server, mode, False)
    run_on(dispatch, spools, most=1000)
    assert sorted(server.taken) == sorted(named(300))


def test_last_entry_is_set_aside_with_patience(server: ScriptedServer, fill: Fill) -> None:
    """Alone it is tried five times over a quarter of a minute; a server that asks to wait, for ever."""
    spools = fill([b"poison"])
    assert 10 < run(spools, server) < 30
    assert spools.refused_count == 1
    server.failure = Answer(outcome="failed", reason="answered 503", may_pass=True)
    spools.own().append(Kind.SPAN, b"poison again", key=SpoolKey(bytes(16), bytes(8)))
    run(spools, server, most=40)
    assert (spools.waiting_count, spools.refused_count) == (1, 1)


def test_one_fault_is_no_reason_to_search(server: ScriptedServer, fill: Fill) -> None:
    """A failure that passes is waited for, and the batch stays whole."""
    spools = fill(named(50))
    dispatch = Dispatch(spools, server, lambda *_: None, lambda: None)
    server.is_down_for_content = True
    assert (dispatch.step(), dispatch.step()) == (0.0, 0.0)
    server.is_down_for_content = False
    assert dispatch.step() is None
    assert [len(request) for request in server.requests] == [50, 50, 50]


def test_fault_of_ours_holds_up_no_other(
    server: ScriptedServer, fill: Fill, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An exception while an entry is sent is a failure of that entry, and is named as what it is."""
    monkeypatch.setenv("RESEARCH_KIT_STRICT_TELEMETRY", "false")
    spools = fill([*named(5), b"breaks us", *named(5)])
    told: list[str] = []
    dispatch = Dispatch(spools, server, lambda outcome, reason, count: told.append(reason), lambda: None)
    run_on(dispatch, spools, most=100)
    assert (len(server.taken), spools.refused_count) == (10, 1)
    assert any("a fault inside research-kit: OverflowError: int too large" in reason for reason in told)


def test_what_is_set_aside_keeps_its_reason_and_can_be_dropped(
    server: ScriptedServer, fill: Fill, tmp_path: Path
) -> None:
    """It is listed with the answer of the server, in one line; what a kernel still writes is not dropped."""
    server.failure = Answer(outcome="failed", reason="answered 500 \x1b[2J\nand more")
    spools = fill([b"poison", *named(3)])
    run(spools, server)
    folder = tmp_path / "spool"
    [found] = list_aside([folder])
    assert (found.kind, found.body_bytes) == ("observation", 6)
    assert found.reason.startswith("answered 500")
    assert found.reason.isprintable()
    assert drop_aside([folder]) == 0
    spools.release()
    assert drop_aside([folder]) == 1
    assert list(list_aside([folder])) == []
    assert list(folder.glob("*.refused")) == []

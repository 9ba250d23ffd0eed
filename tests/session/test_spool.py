"""The spool gives back every whole entry, whatever happened to its process or its file."""

from __future__ import annotations

import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_kit.session.spool import Kind, Spool, SpoolKey


def key_of(number: int, trace: int = 1) -> SpoolKey:
    return SpoolKey(trace.to_bytes(16, "big"), number.to_bytes(8, "big"))


def fill(spool: Spool, count: int, *, size_bytes: int = 20) -> list[bytes]:
    payloads = [f"payload {number} ".encode().ljust(size_bytes, b".") for number in range(count)]
    for number, payload in enumerate(payloads):
        spool.append(Kind.SPAN, payload, key=key_of(number + 1))
    return payloads


def payloads_of(spool: Spool) -> list[bytes]:
    return [payload for _, payload in spool.take(max_count=100_000, max_bytes=1 << 30)]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool.create(tmp_path / "spool")
    yield spool
    spool.close()


def leave_behind(tmp_path: Path, program: str) -> Path:
    """Run a program that fills a spool and is killed; return the file."""
    code = f"""
    import os, signal, sys
    from pathlib import Path
    from research_kit.session.spool import Kind, Spool, SpoolKey
    spool = Spool.create(Path({str(tmp_path / "spool")!r}))
    def add(number, kind=Kind.SPAN):
        key = SpoolKey((1).to_bytes(16, "big"), number.to_bytes(8, "big"))
        spool.append(kind, f"payload {{number}}".encode(), key=key)
    {program}
    os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    [path] = (tmp_path / "spool").glob("*.spool")
    return path


def test_entries_come_in_order_and_leave_when_accepted(spool: Spool) -> None:
    """Entries are taken oldest first, and again until they are accepted."""
    payloads = fill(spool, 5)
    first = spool.take(max_count=2, max_bytes=1000)
    assert [payload for _, payload in first] == payloads[:2]
    assert [payload for _, payload in spool.take(max_count=2, max_bytes=1000)] == payloads[:2]
    spool.accept([entry for entry, _ in first])
    assert payloads_of(spool) == payloads[2:]


def test_batch_is_bounded_in_bytes(spool: Spool) -> None:
    """A batch ends before it grows too large, and holds at least one entry."""
    fill(spool, 3, size_bytes=100)
    assert len(spool.take(max_count=10, max_bytes=250)) == 2
    assert len(spool.take(max_count=10, max_bytes=1)) == 1


def test_file_and_folder_are_private(spool: Spool) -> None:
    """Nobody else can read what waits."""
    fill(spool, 1)
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700


def test_living_owner_keeps_its_file(spool: Spool) -> None:
    """A spool whose process lives cannot be taken over."""
    fill(spool, 1)
    assert Spool.adopt(spool.path) is None


def test_killed_process_leaves_everything(tmp_path: Path) -> None:
    """Entries of a process that was killed are all there, once."""
    path = leave_behind(tmp_path, "for number in range(20): add(number)")
    adopted = Spool.adopt(path)
    assert adopted is not None
    assert payloads_of(adopted) == [f"payload {number}".encode() for number in range(20)]
    adopted.accept([entry for entry, _ in adopted.take(max_count=100, max_bytes=10_000)])
    adopted.close()
    assert list(path.parent.iterdir()) == []


def test_accepted_entries_of_a_killed_process_do_not_come_again(tmp_path: Path) -> None:
    """What the server had taken before the kill is not sent once more."""
    program = (
        "for number in range(4): add(number)\n    "
        "spool.accept([entry for entry, _ in spool.take(max_count=3, max_bytes=1000)])"
    )
    adopted = Spool.adopt(leave_behind(tmp_path, program))
    assert adopted is not None
    assert payloads_of(adopted) == [b"payload 3"]
    adopted.close()


def test_open_root_is_void_once_it_ended(tmp_path: Path) -> None:
    """Only roots that had not ended are open after a kill."""
    program = "add(1, Kind.OPEN)\n    add(2, Kind.OPEN)\n    add(1)"
    adopted = Spool.adopt(leave_behind(tmp_path, program))
    assert adopted is not None
    assert list(adopted.open_roots) == [key_of(2)]
    assert payloads_of(adopted) == [b"payload 1"]
    adopted.close()


@pytest.fixture(scope="module")
def five_entries(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a killed process with five entries."""
    folder = tmp_path_factory.mktemp("killed")
    return leave_behind(folder, "for number in range(5): add(number)").read_bytes()


@pytest.mark.parametrize("cut_bytes", [1, 10, 40, 60])
def test_truncated_file_loses_its_last_entry_only(
    cut_bytes: int, five_entries: bytes, tmp_path: Path
) -> None:
    """A file that was cut off gives back every entry before the cut."""
    path = tmp_path / "cut.spool"
    path.write_bytes(five_entries[:-cut_bytes])
    adopted = Spool.adopt(path)
    assert adopted is not None
    found = payloads_of(adopted)
    assert found == [f"payload {number}".encode() for number in range(len(found))]
    assert len(found) >= 3
    adopted.append(Kind.SPAN, b"new", key=key_of(9))
    assert payloads_of(adopted)[-1] == b"new"
    adopted.close()


@pytest.mark.parametrize("position", range(0, 230, 13))
def test_damaged_byte_costs_one_entry(position: int, five_entries: bytes, tmp_path: Path) -> None:
    """A byte that flipped anywhere costs the entry that it is in, and no other."""
    path = tmp_path / "damaged.spool"
    content = bytearray(five_entries)
    content[position] ^= 0xFF
    path.write_bytes(content)
    adopted = Spool.adopt(path)
    assert adopted is not None
    assert len(payloads_of(adopted)) == 4
    adopted.close()


def test_full_spool_gives_up_the_oldest_traces(tmp_path: Path) -> None:
    """At the limit whole traces go, the oldest first, and are counted; the file stays bounded."""
    spool = Spool.create(tmp_path / "spool", limit_bytes=10_000)
    for trace in range(40):
        for number in range(2):
            spool.append(Kind.SPAN, bytes([trace]) * 250, key=key_of(number + 1, trace + 1))
    kept = payloads_of(spool)
    assert 0 < sum(map(len, kept)) <= 10_000
    assert spool.lost_count == 80 - len(kept)
    assert [payload[0] for payload in kept] == sorted([*range(40 - len(kept) // 2, 40)] * 2)
    assert spool.path.stat().st_size < 20_000
    spool.close()


def test_full_spool_is_told_to_the_next_process(tmp_path: Path) -> None:
    """How many entries were given up is in the file, so the process that delivers the rest can say so."""
    program = (
        "spool.close(); spool = Spool.create(spool.path.parent, limit_bytes=10_000)\n    "
        "for trace in range(40): spool.append(Kind.SPAN, bytes(500), "
        "key=SpoolKey((trace + 1).to_bytes(16, 'big'), bytes(8)))"
    )
    adopted = Spool.adopt(leave_behind(tmp_path, program))
    assert adopted is not None
    assert adopted.lost_count == 40 - adopted.pending_count > 0
    assert adopted.path.stat().st_size <= 10_000
    adopted.close()


def test_full_spool_keeps_scores_and_the_newest_part_of_one_long_trace(tmp_path: Path) -> None:
    """Scores are never given up; of a trace that alone is too large the newest observations stay."""
    spool = Spool.create(tmp_path / "spool", limit_bytes=10_000)
    spool.append(Kind.SCORE, b"score")
    for number in range(100):
        spool.append(Kind.SPAN, bytes([number]) * 250, key=key_of(number + 1))
    [score] = spool.take(max_count=100, max_bytes=1 << 20)
    assert score[1] == b"score"
    spool.accept([score[0]])
    numbers = [payload[0] for payload in payloads_of(spool)]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) > 10
    assert spool.path.stat().st_size <= 10_000
    spool.close()


def test_giving_up_takes_linear_time(tmp_path: Path) -> None:
    """A full spool of very many small traces does not hold up the thread that ends the next span."""
    spool = Spool.create(tmp_path / "spool", limit_bytes=5_000_000)
    start_s = time.process_time()
    for trace in range(60_000):
        spool.append(Kind.SPAN, bytes(60), key=key_of(1, trace + 1))
    assert spool.lost_count > 0
    assert time.process_time() - start_s < 15
    spool.close()


def test_disk_without_room_keeps_entries_in_memory(tmp_path: Path) -> None:
    """On a full disk entries wait in memory and the fault says so; with room the file is used again."""
    spool = Spool.create(tmp_path / "spool")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        payloads = fill(spool, 10, size_bytes=50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert "kept in memory only" in spool.fault
    assert str(spool.path) in spool.fault
    assert payloads_of(spool) == payloads
    spool.append(Kind.SPAN, b"later", key=key_of(99))
    assert spool.fault == ""
    assert payloads_of(spool) == [*payloads, b"later"]
    spool.close()


def test_acceptance_while_the_file_is_rewritten(tmp_path: Path) -> None:
    """A batch that is in flight while the oldest traces go is still settled rightly."""
    spool = Spool.create(tmp_path / "spool", limit_bytes=2_000)
    for trace in range(3):
        spool.append(Kind.SPAN, bytes([trace]) * 500, key=key_of(1, trace + 1))
    batch = [entry for entry, _ in spool.take(max_count=1, max_bytes=10_000)]
    for trace in range(3, 6):
        spool.append(Kind.SPAN, bytes([trace]) * 500, key=key_of(1, trace + 1))
    before = payloads_of(spool)
    spool.accept(batch)
    assert payloads_of(spool) == before
    spool.close()

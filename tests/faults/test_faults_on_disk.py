"""Disks without room, and files that are damaged between two kernels."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS
from kernels import Observations

from research_kit.store import ensure_running, stop_store

MAGIC = b"\xf1rk\x01"
LARGE = "with rk.trace_span('work') as span:\n    span.update(input='x' * 4000)"


@contextmanager
def small_disk(folder: Path, *, size_kb: int = 256) -> Iterator[bool]:
    """Mount a small disk at ``folder``; False when this user must not mount."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k,mode=0700", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def data_disk(place: Any) -> Iterator[bool]:
    with small_disk(place.folder / "data") as is_mounted:
        yield is_mounted


def limit_files(kernel: Any, size: int) -> None:
    """Let no file of the kernel grow beyond ``size`` bytes, where there is no small disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    kernel.run(f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {hard}))")


def test_disk_is_full(data_disk: bool, new_kernel: Any, place: Any) -> None:
    """What ends while the disk is full is kept in memory and delivered; the status says what is wrong."""
    fault = FAULTS["503"]
    place.server.misbehave(fault.name, **fault.options)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(1)")
    if not data_disk:
        limit_files(kernel, 256 * 1024)
    kernel.run(f"for _ in range(99):\n    {LARGE.replace(chr(10), chr(10) + '    ')}")
    status = kernel.wait_for_state("buffering")
    assert status["pending_count"] >= 100
    assert status["lost_count"] == 0
    assert re.search("answered 503; cannot write .*/data/spool/.*in memory only", status["reason"])
    place.server.heal()
    assert kernel.ask("rk.flush(25)")
    assert place.names(session_id).count("work") == 100
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25)")
    assert "cannot write" not in kernel.status()["reason"]
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    assert place.names(session_id).count("work") == 101


def test_disk_is_full_at_exit(data_disk: bool, new_kernel: Any, place: Any) -> None:
    """What found room on the disk is delivered later; one line on the terminal says how many did not."""
    fault = FAULTS["503"]
    place.server.misbehave(fault.name, **fault.options)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(10)")
    if not data_disk:
        limit_files(kernel, 256 * 1024)
    kernel.run(f"for _ in range(99):\n    {LARGE.replace(chr(10), chr(10) + '    ')}")
    pending_count = kernel.status()["pending_count"]
    assert kernel.exit_by_itself() == 0
    assert kernel.shown == []
    [line] = kernel.terminal_lines()
    lost_count = int(
        re.findall(r"research-kit: (\d+) observations were lost.*cannot write '.*/data/spool", line)[0]
    )
    place.server.heal()
    said = place.deliver()
    assert " 0 waiting, 0 refused" in said
    assert 10 <= place.names(session_id).count("work") < 109
    assert int(re.findall(r"(\d+) delivered", said)[0]) + lost_count >= pending_count


def run_script(place: Any, code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import research_kit as rk\nrk.bind()\n{code}"],
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


MANY = (
    "for _ in range(600):\n    with rk.trace_span('work') as span:\n        span.update(input='x' * 4000)\n"
)


def test_script_on_a_full_disk_says_what_is_lost(data_disk: bool, place: Any) -> None:
    """A script that ends normally says in one line how many neither the server nor the disk has taken."""
    if not data_disk:
        pytest.skip("this user must not mount a small disk")
    place.server.misbehave("status", status=503)
    done = run_script(place, MANY)
    [line] = done.stderr.splitlines()
    lost_count = int(re.findall(r"research-kit: (\d+) observations were lost", line)[0])
    place.server.heal()
    said = place.deliver()
    assert int(re.findall(r"(\d+) delivered", said)[0]) + lost_count == 600
    assert 300 < lost_count < 600


def test_what_fits_later_is_kept(data_disk: bool, place: Any) -> None:
    """What found no room is written down when there is some again, at the latest at exit."""
    if not data_disk:
        pytest.skip("this user must not mount a small disk")
    place.server.misbehave("status", status=503)
    filler = place.folder / "data" / "filler"
    filler.write_bytes(bytes(200_000))
    done = run_script(place, MANY.replace("600", "40") + f"import os\nos.remove({str(filler)!r})\n")
    assert done.stderr == ""
    place.server.heal()
    assert "40 delivered, 0 waiting" in place.deliver()


def test_store_on_a_full_disk_takes_it_later(tmp_path: Path, new_kernel: Any, place: Any) -> None:
    """A store without room says so; what it did not take waits with the kernels, and nothing is set aside."""
    with small_disk(tmp_path / "small", size_kb=1024) as is_mounted:
        if not is_mounted:
            pytest.skip("this user must not mount a small disk")
        small = Observations(ensure_running(tmp_path / "small"))
        keys = {
            "LANGFUSE_PUBLIC_KEY": small.address.public_key,
            "LANGFUSE_SECRET_KEY": small.address.secret_key,
        }
        kernel = new_kernel(**keys, LANGFUSE_BASE_URL=small.address.base_url)
        kernel.load()
        kernel.run(f"for _ in range(400):\n    {LARGE.replace(chr(10), chr(10) + '    ')}")
        status = kernel.wait_for_state("buffering")
        assert "answered 507" in status["reason"]
        subprocess.run(["mount", "-o", "remount,size=32m", str(tmp_path / "small")], check=True)
        assert kernel.ask("rk.flush(25)")
        assert (kernel.status()["refused_count"], kernel.status()["pending_count"]) == (0, 0)
        assert [row["name"] for row in small.read()].count("work") == 400
        kernel.assert_silent()
        stop_store(tmp_path / "small")


def spans_at(content: bytes, name: bytes) -> list[tuple[int, int]]:
    """Return where the records of spans of that name begin and end."""
    begins = [at for at in range(len(content)) if content.startswith(MAGIC, at)]
    ends = [*begins[1:], len(content)]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if name in content[begin:end]]


def test_file_is_damaged_between_two_kernels(new_kernel: Any, place: Any) -> None:
    """Every record that is whole arrives, whatever lies before it, behind it or beside it."""
    fault = FAULTS["503"]
    place.server.misbehave(fault.name, **fault.options)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(20, 'work of mine')")
    kernel.kill()
    [path] = place.spool_files()
    content = bytearray(path.read_bytes())
    records = spans_at(content, b"work of mine")
    assert len(records) >= 20
    places = records[-20:]
    middle = sum(places[4]) // 2
    content[middle : middle + 8] = b"\xff\x00damage"
    path.write_bytes(content[: sum(places[14]) // 2])
    path.with_name("empty.spool").touch(mode=0o600)
    path.with_name("zeros.spool").write_bytes(bytes(5000))
    path.with_name("magic.spool").write_bytes(MAGIC * 500)
    place.server.heal()
    later = new_kernel()
    later.load()
    later.run("work(1)")
    assert later.ask("rk.flush(25)")
    # The fifth is damaged, the fifteenth and those behind it are cut off.
    assert place.names(session_id).count("work of mine") == 13
    later.assert_silent()
    assert later.exit_by_itself() == 0
    assert place.spool_files() == []

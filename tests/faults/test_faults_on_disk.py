"""Disks without room, and files that are damaged between two kernels."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS

MAGIC = b"\xf1rk\x01"
LARGE = "with rk.trace_span('work') as span:\n    span.update(input='x' * 4000)"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of 256 kB at ``folder``; False when this user must not mount."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)]
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
    place.server.heal()
    assert kernel.ask("rk.flush(25)")
    assert place.names(session_id).count("work") == 100
    kernel.run("work(1)")
    assert kernel.ask("rk.flush(25)")
    assert "cannot write" not in kernel.status()["reason"]
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    assert place.names(session_id).count("work") == 101


@pytest.mark.faults_long
def test_disk_is_full_at_exit(data_disk: bool, new_kernel: Any, place: Any) -> None:
    """What found room on the disk before it was full is delivered later; the kernel ends by itself."""
    fault = FAULTS["503"]
    place.server.misbehave(fault.name, **fault.options)
    kernel = new_kernel()
    session_id = kernel.load()
    kernel.run("work(10)")
    if not data_disk:
        limit_files(kernel, 256 * 1024)
    kernel.run(f"for _ in range(99):\n    {LARGE.replace(chr(10), chr(10) + '    ')}")
    assert kernel.exit_by_itself() == 0
    kernel.assert_silent()
    place.server.heal()
    assert " 0 waiting, 0 refused" in place.deliver()
    assert 10 <= place.names(session_id).count("work") < 109


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

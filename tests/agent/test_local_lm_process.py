"""The small local model's process: start, sharing, recovery, end."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from research_kit.agent import LMChoice, stop_local_lm
from research_kit.agent.local_lm_model import ModelParts, assemble_model
from research_kit.agent.local_lm_process import (
    LocalServer,
    ensure_local_server,
    is_still_running,
    local_lm_directory,
    read_state,
    stop_local_server,
    write_state,
)
from research_kit.agent.local_lm_prompts import KeptPrompts, prompt_folder
from research_kit.config import Settings, load_settings
from research_kit.errors import LMNotFoundError


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


@pytest.mark.local_lm
def test_server_is_private_and_shared(local_choice: LMChoice, local_settings: Settings) -> None:
    """One server serves everyone who asks at once; its key is asked for and kept from others."""
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(lambda _: ensure_local_server(local_settings), range(4)))
    assert len(set(servers)) == 1
    server = servers[0]
    assert server.base_url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{server.base_url}/v1/models").status_code == 401
    state_path = local_lm_directory(local_settings) / "server.json"
    assert stat.S_IMODE(state_path.stat().st_mode) == 0o600


def test_stranger_on_the_port_of_a_dead_server_gets_nothing(tmp_path: Path) -> None:
    """After a crash the note stays, and whoever has taken the port receives neither key nor prompt."""
    settings = replace(load_settings(), cache_dir=tmp_path)
    directory = local_lm_directory(settings)
    directory.mkdir(parents=True, mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.5)
        address = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        state = LocalServer(base_url=address, api_key="secret", pid=os.getpid())
        write_state(directory, state)
        assert not is_still_running(state, settings)
        assert not stop_local_server(directory)
        write_state(directory, state)
        with pytest.raises(LMNotFoundError):
            ensure_local_server(settings, timeout_s=0.2)
        with pytest.raises(TimeoutError):
            stranger.accept()


@pytest.mark.local_lm
def test_calls_report_tokens_and_know_no_price(local_choice: LMChoice) -> None:
    """Usage comes with every call; the price is left to whoever knows that the model is local."""
    local_choice.lm("The capital of France is", max_tokens=4)
    call = local_choice.lm.history[-1]
    assert call["usage"]["completion_tokens"] > 0
    assert call["usage"]["prompt_tokens"] > 0
    assert call["cost"] is None
    assert call["model"] == "research-kit/gemma-3-270m"


@pytest.mark.local_lm
def test_killed_server_is_started_again_by_the_next_call(
    local_choice: LMChoice, local_settings: Settings
) -> None:
    """A model in use survives the death of its server."""
    before = ensure_local_server(local_settings)
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: not is_still_running(before, local_settings))
    assert local_choice.lm("Hello", max_tokens=2)
    assert ensure_local_server(local_settings).pid != before.pid


@pytest.mark.local_lm
def test_fixed_beginnings_are_read_once(local_choice: LMChoice, local_settings: Settings) -> None:
    """What the model has read of a prompt is kept private, loaded again, and deleted when broken."""
    server = ensure_local_server(local_settings)
    folder = prompt_folder(local_lm_directory(local_settings))
    kept = KeptPrompts(server, folder, ["One two three four five six."])
    kept.add_missing(threading.Event())
    [path] = folder.glob("*.bin")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept.load()
    assert path.exists()
    path.write_bytes(path.read_bytes()[:100])
    kept.load()
    assert not path.exists()
    away = KeptPrompts(replace(server, base_url="http://127.0.0.1:9"), folder, ["One."])
    away.add_missing(threading.Event())
    assert list(folder.glob("*.bin")) == []


@pytest.mark.local_lm
def test_stop_ends_the_process_and_says_so(local_choice: LMChoice, local_settings: Settings) -> None:
    """Stopping ends the process; stopping again finds nothing."""
    server = ensure_local_server(local_settings)
    assert stop_local_lm(local_settings)
    assert not is_still_running(server, local_settings)
    assert not stop_local_lm(local_settings)


@pytest.mark.local_lm
def test_idle_server_ends_by_itself(local_choice: LMChoice, local_settings: Settings) -> None:
    """A server that nobody asks anything withdraws its state and ends."""
    stop_local_lm(local_settings)
    directory = local_lm_directory(local_settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "research_kit.agent.local_lm_server", str(directory), "--idle-s", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.wait(timeout=90) == 0
    assert read_state(directory) is None


def test_stale_state_is_replaced_or_refused(tmp_path: Path) -> None:
    """A state file of a dead process or of a foreign program stops nothing and is not trusted."""
    settings = load_settings({"RESEARCH_KIT_CACHE_DIR": str(tmp_path)})
    directory = local_lm_directory(settings)
    directory.mkdir(parents=True)
    foreign = LocalServer(base_url="http://127.0.0.1:9", api_key="x", pid=os.getpid())
    write_state(directory, foreign)
    assert read_state(directory) == foreign
    assert not stop_local_lm(settings)
    assert read_state(directory) is None
    (directory / "server.json").write_text("{broken")
    assert read_state(directory) is None


def test_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """When the server's process fails, the error names its log and how it ends."""
    settings = load_settings({"RESEARCH_KIT_CACHE_DIR": str(tmp_path)})
    directory = local_lm_directory(settings)
    # A folder stands where the model file has to be written.
    (directory / "gemma-3-270m-q4_k_m.gguf").mkdir(parents=True)
    with pytest.raises(LMNotFoundError, match=r"did not start.*server\.log"):
        ensure_local_server(settings, timeout_s=60)


def model_parts(folder: Path, content: bytes, expected: bytes) -> ModelParts:
    folder.mkdir()
    paths = (folder / "part0", folder / "part1")
    paths[0].write_bytes(content[:5])
    paths[1].write_bytes(content[5:])
    return ModelParts(file_name="small.gguf", sha256=hashlib.sha256(expected).hexdigest(), paths=paths)


def test_model_is_assembled_once(tmp_path: Path) -> None:
    """The file is put together and checked once; later starts read neither parts nor file."""
    parts = model_parts(tmp_path / "parts", b"hello world", b"hello world")
    path = assemble_model(tmp_path, parts)
    assert path.read_bytes() == b"hello world"
    for part in parts.paths:
        part.unlink()
    assert assemble_model(tmp_path, parts) == path


def test_damaged_model_file_is_assembled_again(tmp_path: Path) -> None:
    """A file that changed after it was checked is checked again and replaced."""
    parts = model_parts(tmp_path / "parts", b"hello world", b"hello world")
    path = assemble_model(tmp_path, parts)
    path.write_bytes(b"hello")
    assert assemble_model(tmp_path, parts).read_bytes() == b"hello world"


def test_wrong_parts_leave_no_file(tmp_path: Path) -> None:
    """Parts with another checksum are refused, and nothing half-made is left."""
    parts = model_parts(tmp_path / "parts", b"hello there", b"hello world")
    with pytest.raises(LMNotFoundError, match=r"checksum.*Reinstall"):
        assemble_model(tmp_path, parts)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]

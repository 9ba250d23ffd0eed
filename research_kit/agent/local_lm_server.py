"""The program that serves the small local model: ``python -m research_kit.agent.local_lm_server DIRECTORY``.

Owns the model file, the server's parameters and its end; does not know DSPy. Invariant: it listens on the
loopback interface only, asks for a key, and ends by itself when nobody has asked anything for a while.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from research_kit.agent.local_lm_model import assemble_model, installed_parts
from research_kit.agent.local_lm_process import (
    MODEL_ALIAS,
    LocalServer,
    life_lock_of,
    lock_of,
    read_state,
    write_state,
)
from research_kit.agent.local_lm_prompts import KeptPrompts, prompt_folder
from research_kit.agent.small_tasks import ALL_TASKS, fixed_text

__all__ = ["main"]

# One for each kind of prompt that the assistant sends, so that its fixed beginning stays evaluated.
_SLOT_COUNT = len(ALL_TASKS)
_SLOT_TOKENS = 2048
_BATCH_TOKENS = 128
_GRACE_S = 1.0
# Whoever has started the server asks it something first.
_KEEP_PROMPTS_AFTER_S = 20.0

# The model has no chat template of its own: it continues text, so the messages are simply joined.
_TEMPLATE = "{%- for message in messages -%}{{ message['content'] }}{%- endfor -%}"


def main(argv: list[str] | None = None) -> int:
    """Serve the model until it is idle or told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="research-kit local model")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--idle-s", type=int, default=900)
    options = parser.parse_args(argv)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    os.umask(0o077)
    # Held until the process ends, however it does: what is still written down then leads to nobody of ours.
    life = life_lock_of(options.directory)
    life.acquire()
    model_path = assemble_model(options.directory, installed_parts())
    prompts = prompt_folder(options.directory)
    api_key = secrets.token_urlsafe(24)
    # Kept in a variable: the server lives as long as this object.
    server = import_module("xllamacpp").Server(_parameters(model_path, prompts, api_key, options.idle_s))
    state = LocalServer(base_url=server.listening_address, api_key=api_key, pid=os.getpid())
    texts = [fixed_text(task.instructions, task.inputs, task.demos) for task in ALL_TASKS]
    kept = KeptPrompts(state, prompts, texts)
    kept.load()
    write_state(options.directory, state)
    poll_s = max(0.2, min(15.0, options.idle_s / 4))
    _serve_until_idle(options.directory, state, stop, kept, poll_s=poll_s)
    sys.stdout.flush()
    # Without running destructors: the server's threads may still hold a request that nobody waits for.
    os._exit(0)


def _parameters(model_path: Path, prompts: Path, api_key: str, idle_s: int) -> Any:
    parameters = import_module("xllamacpp").CommonParams()
    thread_count = max(1, (os.cpu_count() or 2) - 1)
    parameters.model.path = str(model_path)
    parameters.model_alias = {MODEL_ALIAS}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [api_key]
    parameters.cpuparams.n_threads = thread_count
    parameters.cpuparams_batch.n_threads = thread_count
    parameters.n_parallel = _SLOT_COUNT
    parameters.n_ctx = _SLOT_COUNT * _SLOT_TOKENS
    # Without the full window a prompt that differs near its end is evaluated again from the start.
    parameters.swa_full = True
    parameters.cache_ram_mib = 128
    # The vocabulary is large: each position of a batch takes a megabyte.
    parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
    parameters.chat_template = _TEMPLATE
    parameters.endpoint_slots = True
    parameters.slot_save_path = f"{prompts}/"
    parameters.warmup = False
    parameters.sleep_idle_seconds = idle_s
    return parameters


def _serve_until_idle(
    directory: Path, state: LocalServer, stop: threading.Event, kept: KeptPrompts, *, poll_s: float
) -> None:
    keep_at_s = time.monotonic() + _KEEP_PROMPTS_AFTER_S
    while not stop.wait(poll_s):
        if read_state(directory) != state:
            return
        if _is_asleep(state):
            if _leave(directory, state, stop):
                return
        elif time.monotonic() > keep_at_s:
            kept.add_missing(stop)


def _leave(directory: Path, state: LocalServer, stop: threading.Event) -> bool:
    """Withdraw the state, and end unless somebody who had read it before asks something right now."""
    with lock_of(directory).acquire():
        state_path = directory / "server.json"
        state_path.unlink(missing_ok=True)
        stop.wait(_GRACE_S)
        if _is_asleep(state):
            return True
        write_state(directory, state)
        return False


def _is_asleep(state: LocalServer) -> bool:
    # Asking for the properties does not count as use.
    answer = httpx.get(
        f"{state.base_url}/props",
        headers={"Authorization": f"Bearer {state.api_key}"},
        timeout=30.0,
        verify=False,  # there is nothing to verify, and certificates take longer than the answer
    )
    return bool(answer.json().get("is_sleeping"))


if __name__ == "__main__":
    raise SystemExit(main())

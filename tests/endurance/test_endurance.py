"""A working day in ten minutes: two kernels, cells and messages, a server that is away half the time.

What is checked at its end: everything that was observed can be read back, once; the spool is empty; and the
kernels hold as many threads and open files as they did after their first minutes, and hardly more memory,
when all that was observed until then is delivered.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from kernels import Kernel, end_kernel, start_kernel
from misbehaving_server import MisbehavingServer, running_server
from scripted_lm import ScriptedLM, adapter_reply, running_lm

from research_kit.store import StoreAddress, ensure_running, stop_store
from research_kit.traces import TraceReader, observations_df

pytestmark = pytest.mark.endurance

KERNELS = 2
CELLS = 10_000  # of each kernel, every second one observed
MESSAGES = 1_000  # of each kernel
LIVES = 4  # how often each kernel is started, the last one included
AWAY_S = 10.0
DEADLINE_S = 300.0
MEMORY_MB = 60.0  # what a life may add after its first tenth

BEGIN = """
import dspy, research_kit as rk
%load_ext research_kit
rk.bind("{session_id}")
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
class Simple(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question, history: dspy.History -> answer")
    async def aforward(self, question, history):
        return await self.predict.acall(question=question, history=history)
conversation = rk.Conversation(assistant=Simple(), max_history_tokens=500)
"""
ASK = "assert conversation.ask('Question {number} of the day?') == 'An answer.'"
WORK = "with rk.trace_span('work', input={number}) as span: span.update(output='done')"


class Day:
    """One kernel's day: its lives, and what each held at its beginning and its end."""

    def __init__(self, number: int, folder: Path, settings: dict[str, str]) -> None:
        self.session_id = f"day-{number}"
        self._folder, self._settings = folder, settings
        self.growth: list[Counter[str]] = []

    def live(self, life: int) -> None:
        kernel = start_kernel(self._settings, cwd=self._folder)
        try:
            kernel.run(BEGIN.format(session_id=self.session_id))
            cells, messages = CELLS // LIVES, MESSAGES // LIVES
            per_message = cells // messages
            for number in range(cells):
                kernel.run(WORK.format(number=number) if number % 2 else f"x = {number}")
                if number % per_message == 0:
                    kernel.run(ASK.format(number=number))
                if number == cells // 10:
                    at_first = held_at_rest(kernel)
                # Not at the end: what is not delivered then is left to others.
                if number == cells // 10 * 9:
                    self.growth.append(held_at_rest(kernel, minus=at_first))
        finally:
            # A restart by the user's hand, and every second time an end that asks nobody.
            if life % 2:
                kernel.manager.shutdown_kernel(now=True)
            end_kernel(kernel)


def held_at_rest(kernel: Kernel, minus: Counter[str] | None = None) -> Counter[str]:
    """Return what the kernel holds when all is delivered: before, a connection may be open or be gone."""
    kernel.run(f"import gc; assert rk.flush(timeout_s={DEADLINE_S}); _ = gc.collect()")
    process = psutil.Process(kernel.manager.provisioner.pid)
    held = Counter(
        threads=process.num_threads(), files=process.num_fds(), mb=process.memory_info().rss // 2**20
    )
    if minus is not None:
        held.subtract(minus)
    return held


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedLM]:
    with running_lm() as lm:
        yield lm


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data_dir = tmp_path_factory.mktemp("store")
    yield ensure_running(data_dir)
    stop_store(data_dir)


def come_and_go(front: MisbehavingServer, is_over: threading.Event) -> None:
    while not is_over.wait(AWAY_S):
        front.misbehave("refused")
        if is_over.wait(AWAY_S):
            break
        front.heal()
    front.heal()


def test_a_day_leaves_everything_in_the_store_and_nothing_in_the_kernels(
    address: StoreAddress, server: ScriptedLM, tmp_path: Path
) -> None:
    """Every cell and message of the day is read back once, and no kernel has grown."""
    server.script(*[adapter_reply(answer="An answer.") for _ in range(KERNELS * MESSAGES)])
    is_over = threading.Event()
    with running_server(address.base_url) as front, ThreadPoolExecutor() as pool:
        settings = {
            "LANGFUSE_BASE_URL": front.base_url,
            "LANGFUSE_PUBLIC_KEY": address.public_key,
            "LANGFUSE_SECRET_KEY": address.secret_key,
            "RESEARCH_KIT_LM": "openai/gpt-4o-mini",
            "RESEARCH_KIT_LM_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "x",
        }
        days = [Day(number, tmp_path, settings) for number in range(KERNELS)]
        weather = pool.submit(come_and_go, front, is_over)
        for life in range(LIVES):
            list(pool.map(lambda day, life=life: day.live(life), days))
        is_over.set()
        weather.result()
        # One more kernel sends what those that were killed left behind.
        last = start_kernel(settings, cwd=tmp_path)
        last.run("import research_kit as rk\n%load_ext research_kit\nwith rk.trace_span('end'): pass")
        last.run(f"assert rk.flush(timeout_s={DEADLINE_S})")
        end_kernel(last)
    server.finish()
    reader = TraceReader(address.base_url, address.public_key, address.secret_key)
    for day in days:
        frame = observations_df(day.session_id, reader=reader, cache=False)
        counts = frame["name"].value_counts()
        print(day.session_id, counts.head(6).to_dict(), [dict(growth) for growth in day.growth])
        assert not frame.duplicated(["trace_id", "observation_id"]).any()
        assert counts["work"] == CELLS // 2
        assert counts["chat"] == MESSAGES
        assert len(day.growth) == LIVES
        for growth in day.growth:
            assert growth["threads"] <= 0, growth
            assert growth["files"] <= 0, growth
            assert growth["mb"] <= MEMORY_MB, growth
    assert spools_of(Path(os.environ["RESEARCH_KIT_DATA_DIR"])) == []


def spools_of(data_dir: Path) -> list[Path]:
    deadline = time.monotonic() + DEADLINE_S
    while (left := list(data_dir.rglob("*.spool"))) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left

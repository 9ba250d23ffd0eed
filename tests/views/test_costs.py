"""What a session, a cell or a block cost: every call of it once, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import end_kernel, start_kernel
from scripted_lm import MODEL, running_lm

from research_kit._words import UNKNOWN
from research_kit.errors import ConfigError
from research_kit.store import stop_store
from research_kit.views import measure_cost

SETUP = """
%load_ext research_kit
import asyncio, threading, dspy, research_kit as rk
from concurrent.futures import ThreadPoolExecutor
from langfuse import get_client
lm = dspy.LM("openai/{model}", api_base="{url}", api_key="k", cache=False)

KIND = dict(as_type='generation')

def call(cost=0.25):
    with get_client().start_as_current_observation(
        name="call", as_type="generation", model="priced", usage_details={{"input": 10, "output": 2}},
        cost_details={{"total": cost}},
    ):
        pass
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("costs")
    environment = {"RESEARCH_KIT_DATA_DIR": str(folder), "RESEARCH_KIT_STRICT_TELEMETRY": "true"}
    kernel = start_kernel(environment, folder)
    with running_lm() as scripted:
        kernel.run(SETUP.format(model=MODEL, url=scripted.base_url))
        kernel.scripted = scripted
        yield kernel
    end_kernel(kernel)
    stop_store(folder)


def report_of(kernel: Any, code: str) -> str:
    """Return the last thing that a cell showed."""
    kernel.run(code)
    return next(text for text in reversed(kernel.printed) if text)


def test_a_cell_shows_what_it_cost(kernel: Any) -> None:
    """Calls in threads, pools and tasks count, nested ones once; those of other cells do not."""
    kernel.run("call(5.0)")
    shown = report_of(
        kernel,
        """%%cost
thread = threading.Thread(target=call); thread.start(); thread.join()
with ThreadPoolExecutor(2) as pool: list(pool.map(call, [0.25, 0.25]))
around = dict(name="around", as_type="generation", cost_details={"total": 0.25})
with get_client().start_as_current_observation(**around): call()
await asyncio.gather(*[asyncio.to_thread(call) for _ in range(2)])
""",
    )
    assert re.match(r"This cell: cost \$1.50 · LM calls 6 · tokens 60 in · 12 out · time \d", shown), shown
    assert shown.endswith("model priced")


def test_calls_of_real_models_and_unknown_prices_are_told(kernel: Any) -> None:
    """A DSPy call is counted with its tokens, its unknown price is not zero; every model has a line."""
    kernel.scripted.script("four words of text", "two words")
    shown = report_of(kernel, "%%cost\n%%trace both\nawait lm.acall('one two three')\nlm('x'); call()")
    first, *lines = shown.split("\n")
    assert first.startswith("This cell: cost ≥ $0.25 · LM calls 3 · tokens 14 in · 8 out"), shown
    assert [line.split(" · ")[:2] for line in lines] == [
        ["  priced", "$0.25"],
        [f"  openai/{MODEL}", UNKNOWN],
        ["2 calls have no known price."],
    ]


def test_failing_and_silent_cells_have_their_cost(kernel: Any) -> None:
    """A cell that raises shows what it cost until then; one without calls cost nothing."""
    shown: list[str] = []
    kernel.client.execute_interactive(
        "%%cost\ncall(); 1 / 0",
        timeout=60,
        output_hook=lambda message: shown.append(message["content"].get("data", {}).get("text/plain", "")),
    )
    assert any(text.startswith("This cell: cost $0.25") for text in shown)
    assert report_of(kernel, "%%cost\nx = 1").startswith("This cell: cost $0 · LM calls 0 · time")


def test_a_block_and_a_session_have_their_cost(kernel: Any) -> None:
    """The functions behind the magics need no cell; the session is read back from where its traces are."""
    kernel.run("rk.new_session()")
    code = "with rk.measure_cost('Two') as two: call(); call()\nprint(two.cost_usd, two.call_count)"
    assert report_of(kernel, code).split() == ["0.5", "2"]
    assert report_of(kernel, "%cost").startswith(
        "This session: cost $0.50 · LM calls 2 · tokens 20 in · 4 out"
    )
    late = "with rk.measure_cost() as late: open = get_client().start_observation(name='l', **KIND)"
    assert (
        report_of(kernel, f"{late}\nopen.end(); print(late)")
        .rstrip()
        .endswith("1 call was still running and not counted.")
    )


def test_without_tracing_the_report_says_so() -> None:
    """Where nothing can be counted, no zero pretends that something was."""
    with measure_cost() as report:
        with pytest.raises(ConfigError, match="not known before the block has ended"):
            _ = report.cost_usd
        assert "still running" in str(report)
    assert "tracing is off" in str(report)

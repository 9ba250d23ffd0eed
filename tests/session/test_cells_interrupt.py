"""An interrupt of the kernel ends our own waits at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 0.5
WAIT = """
import time
print('waiting', flush=True)
try:
    rk.flush(60)
except KeyboardInterrupt:
    caught_s = time.monotonic()
"""


def test_interrupt_ends_a_flush(new_kernel: Callable[..., Any]) -> None:
    """Flushing to a server that is away ends within half a second of the interrupt."""
    kernel = new_kernel(
        LANGFUSE_PUBLIC_KEY="pk", LANGFUSE_SECRET_KEY="sk", LANGFUSE_BASE_URL="http://127.0.0.1:9"
    )
    kernel.run("%load_ext research_kit\nimport research_kit as rk\nwith rk.trace_span('work'): pass")
    sent_s: list[float] = []

    def interrupt(message: dict[str, Any]) -> None:
        if message["content"].get("text", "").startswith("waiting"):
            sent_s.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    kernel.client.execute_interactive(WAIT, timeout=60, output_hook=interrupt)
    caught_s = float(kernel.run("print(caught_s)"))  # one clock for all processes of the machine
    assert caught_s - sent_s[0] < LIMIT_S

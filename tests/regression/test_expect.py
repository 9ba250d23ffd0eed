"""`expect` outside of a regression run: the session is read back from the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from research_kit.store import stop_store

PROGRAM = """
import sys
import dspy
import research_kit as rk
from research_kit.regression.cassette import Cassette, RecordedCall
from pathlib import Path

path = Path(sys.argv[1])
request = {"model": "openai/gpt-4o-mini", "prompt": "hello", "parameters": {}}
answer = {
    "outputs": ["hi"], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "cost_usd": 0.25, "response_model": "m", "latency_s": 0.1,
}
Cassette(path=path, calls=[RecordedCall(kind="lm", request=request, answer=answer)]).save()

rk.bind()
rk.instrument("dspy")
look = dspy.Tool(lambda page: page, name="look", desc="", args={"page": {"type": "integer"}})
with rk.trace_span("question"), rk.replaying(path):
    dspy.LM("openai/gpt-4o-mini", cache=False)("hello")
    look(page=1)
rk.flush()
rk.wait_for(rk.current_session_id(), 3)
print(rk.expect(max_cost_usd=0.25, max_total_tokens=5, tools=["look"], no_errors=True))
try:
    rk.expect(max_cost_usd=0.2, tool_sequence=[])
except AssertionError as error:
    print(error)
"""


def test_expect_reads_the_session_back(clean_environment: Path) -> None:
    """A script, or a notebook that somebody runs by hand, may expect the same as a test."""
    command = [sys.executable, "-c", PROGRAM, str(clean_environment / "one.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    stop_store(Path(os.environ["RESEARCH_KIT_DATA_DIR"]))
    assert done.stdout.splitlines() == [
        "TraceFacts(lm_call_count=1, total_tokens=5, cost_usd=0.25, models=('openai/gpt-4o-mini',), "
        "tools=('look',), errors=())",
        "max_cost_usd=0.2 is exceeded: 0.25.",
        "tool_sequence: expected none, called were look.",
    ], done.stderr

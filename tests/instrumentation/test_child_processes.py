"""What child processes observe arrives in the parent's session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from research_kit.store import ensure_running, stop_store

PROGRAM = """
import multiprocessing, os, sys
import research_kit as rk

def work(n):
    # A spawned child is a new interpreter, in which nothing is bound; a forked one goes on as the parent.
    rk.bind()
    with rk.trace_span(f"work {n}"):
        pass
    rk.flush()

if __name__ == "__main__":
    rk.bind("family", user_id="ada")
    os.environ.update(RESEARCH_KIT_SESSION_ID=rk.current_session_id(), LANGFUSE_USER_ID=rk.current_user_id())
    with rk.trace_span("before"):
        pass
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(n,)) for n in range(2)]
    for child in children:
        child.start()
    with rk.trace_span("meanwhile"):
        pass
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert rk.flush()
    rk.wait_for("family", 4)
    print(rk.observations_df("family")[["name", "session_id", "user_id"]].to_json(orient="values"))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_are_in_the_session(tmp_path: Path, method: str) -> None:
    """Spans of forked and spawned children arrive once each, in the session, beside the parent's."""
    environ = {**os.environ, "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data")}
    script = tmp_path / "family.py"
    script.write_text(textwrap.dedent(PROGRAM))
    ensure_running(tmp_path / "data")
    try:
        run = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), method],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.strip().splitlines()[-1])
    assert sorted(name for name, *_ in rows) == ["before", "meanwhile", "work 0", "work 1"]
    assert {(session_id, user_id) for _, session_id, user_id in rows} == {("family", "ada")}

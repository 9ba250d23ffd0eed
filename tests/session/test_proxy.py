"""A proxy for the outside world is set, as in many companies: this machine is reached all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from research_kit.store import stop_store

_PROGRAM = """
import research_kit as rk
rk.bind("behind-a-proxy")
with rk.trace_span("work"):
    pass
print(rk.flush(), rk.status().state, len(rk.observations_df()))
"""
# Nothing listens there.
_PROXY = "http://127.0.0.1:9"


def test_embedded_store_is_reached_behind_a_proxy(tmp_path: Path) -> None:
    """Traces arrive in the store and are read back, although a proxy is set that would not reach it."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ |= {"http_proxy": _PROXY, "https_proxy": _PROXY, "RESEARCH_KIT_DATA_DIR": str(tmp_path)}
    try:
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environ, capture_output=True, text=True, timeout=120
        )
    finally:
        stop_store(tmp_path)
    assert run.stdout.split() == ["True", "local", "1"], run.stderr

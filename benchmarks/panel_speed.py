"""The chat panel beside an ipywidgets HTML value: 2,000 streamed tokens, after none and after 500 messages.

What the kernel publishes is measured; the copy that the saved notebook keeps is not part of it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.measuring import KEYS, ROOT, Options, Row, median, null_server

_GOAL_S = 0.2
_GOAL_KB = 30.0
_GOAL_ENGINE_MS = 15.0
_GOAL_STOP_S = 0.3
_MESSAGE_COUNT = 200
_STOP_COUNT = 20
_DEADLINE_S = 120.0


def measure(options: Options) -> list[Row]:
    """Measure both ways with 0 and 500 earlier messages."""
    token_count = 200 if options.is_quick else 2000
    rows: list[Row] = []
    for history_count in (0, 500):
        panel, html = (
            [_run(options, way, history_count, token_count) for _ in range(options.repeat_count)]
            for way in ("panel", "html")
        )
        seconds = median(run[0] for run in panel)
        kilobytes = median(run[1] for run in panel) / 1000
        after = f"{token_count:,} tokens after {history_count} messages"
        rows += [
            Row(
                name=f"{after}, streamed",
                value=seconds,
                unit="s",
                against="ipywidgets HTML value",
                ratio=seconds / median(run[0] for run in html),
                goal=_GOAL_S,
            ),
            Row(
                name=f"{after}, to the browser",
                value=kilobytes,
                unit="kB",
                against="ipywidgets HTML value",
                ratio=kilobytes * 1000 / median(run[1] for run in html),
                goal=_GOAL_KB,
            ),
        ]
    with null_server() as base_url:
        settings = {**KEYS, "LANGFUSE_BASE_URL": base_url}
        engine = [_run(options, "engine", _MESSAGE_COUNT, 0, **settings) for _ in range(options.repeat_count)]
    rows.append(
        Row(
            name="a message without a language model, traced",
            value=median(run[0] for run in engine) * 1000,
            unit="ms",
            goal=_GOAL_ENGINE_MS,
        )
    )
    stops = [_run(options, "stop", _STOP_COUNT, 0) for _ in range(options.repeat_count)]
    rows.append(
        Row(
            name="first token until the answer has stopped",
            value=median(run[0] for run in stops),
            unit="s",
            goal=_GOAL_STOP_S,
        )
    )
    return rows


def _run(
    options: Options, way: str, history_count: int, token_count: int, **settings: str
) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.panel_worker", way, str(history_count), str(token_count)]
    environment = options.environment(way, **(settings or {"LANGFUSE_TRACING_ENABLED": "false"}))
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_DEADLINE_S
    )
    seconds, byte_count = map(float, run.stdout.split())
    return seconds, byte_count

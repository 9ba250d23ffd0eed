"""Calls made with a provider's own library are observed when the user asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripted_lm import running_lm

import research_kit as rk
from research_kit.errors import ConfigError
from research_kit.instrumentation import instrument, uninstrument
from research_kit.store import ensure_running, stop_store

PROGRAM = """
import json, os, sys
import research_kit as rk
from research_kit.instrumentation import instrument, uninstrument
import dspy, openai

address = sys.argv[1]
assert instrument("openai") is False  # nothing is bound yet
rk.bind("openai")
assert instrument("openai") and instrument("openai") and instrument("litellm") and instrument("dspy")
client = openai.OpenAI(base_url=address, api_key="test")
ask = dict(model="gpt-4o-mini", messages=[{"role": "user", "content": "what colour is the sky?"}])
with rk.trace_span("question"):
    assert client.chat.completions.create(**ask).choices[0].message.content == "blue is the sky"
    pieces = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "green is the sky"
lm = dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="test", cache=False, engine="litellm")
lm("hello")
uninstrument("openai"); uninstrument("litellm")
client.chat.completions.create(**ask)
assert rk.flush()
rk.wait_for("openai", 4)
frame = rk.observations_df("openai")
columns = ["observation_id", "parent_observation_id", "type", "name", "model"]
columns += ["input_tokens", "output_tokens"]
print(frame[columns].to_json(orient="records"))
"""


def test_openai_calls_are_generations(tmp_path: Path) -> None:
    """Plain and streamed calls are generations with model and tokens, and DSPy's calls are not doubled."""
    environ = {**os.environ, "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data")}
    ensure_running(tmp_path / "data")
    try:
        with running_lm() as server:
            server.script("blue is the sky", "green is the sky", "hello you", "not observed")
            run = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(PROGRAM), server.base_url],
                env=environ,
                capture_output=True,
                text=True,
                timeout=120,
            )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.strip().splitlines()[-1])
    question = next(row["observation_id"] for row in rows if row["name"] == "question")
    calls = [row for row in rows if row["type"] == "GENERATION"]
    assert len(rows) == 4
    assert sum(row["parent_observation_id"] == question for row in calls) == 2
    for row in calls:
        assert row["model"].endswith("gpt-4o-mini") or row["model"] == "scripted-model"
        assert (row["input_tokens"], row["output_tokens"]) in [(5, 4), (1, 2)]


OTHERS = """
import sys
import research_kit as rk

library, address = sys.argv[1:]
rk.bind("others", user_id="ada")
assert rk.instrument(library)
ask = dict(messages=[{"role": "user", "content": "what colour is the sky?"}], max_tokens=20)
with rk.trace_span("question"):
    if library == "anthropic":
        import anthropic
        client = anthropic.Anthropic(base_url=address.removesuffix("/v1"), api_key="test", max_retries=0)
        answer = client.messages.create(model="claude-sonnet-4-5", **ask).content[0].text
    else:
        import litellm
        answer = litellm.completion(model="openai/gpt-4o-mini", api_base=address, api_key="test", **ask)
        answer = answer.choices[0].message.content
assert answer == "blue is the sky", answer
assert rk.flush()
rk.wait_for("others", 2)
frame = rk.observations_df("others")
columns = ["observation_id", "parent_observation_id", "type", "name", "model", "session_id", "user_id"]
columns += ["input_tokens", "output_tokens"]
print(frame[columns].to_json(orient="records"))
"""


@pytest.mark.parametrize("library", ["anthropic", "litellm"])
def test_calls_of_other_libraries_are_generations(library: str, tmp_path: Path) -> None:
    """A call made with the library itself is one generation of the trace, with model, tokens and session."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    environ = {
        **os.environ,
        "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    ensure_running(tmp_path / "data")
    try:
        with running_lm() as server:
            server.script("blue is the sky")
            run = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", textwrap.dedent(OTHERS), library, server.base_url],
                env=environ,
                capture_output=True,
                text=True,
                timeout=120,
            )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.strip().splitlines()[-1])
    [question] = [row for row in rows if row["name"] == "question"]
    calls = [row for row in rows if row["type"] == "GENERATION"]
    assert len(calls) == 1, rows
    call = calls[0]
    assert len(rows) == 2
    assert call["parent_observation_id"] == question["observation_id"]
    assert {(row["session_id"], row["user_id"]) for row in rows} == {("others", "ada")}
    assert call["model"].removeprefix("openai/") in ("claude-sonnet-4-5", "gpt-4o-mini", "scripted-model")
    assert (call["input_tokens"], call["output_tokens"]) == (5, 4)


def test_unknown_library_is_an_error() -> None:
    """A library that cannot be observed is refused with the list of those that can."""
    for use in (instrument, uninstrument):
        with pytest.raises(ConfigError, match=r"'opnai' .*'anthropic', 'dspy', 'litellm', 'mcp', 'openai'"):
            use("opnai")


def test_disabled_tracing_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tracing disabled nothing is imported and nothing is observed."""
    monkeypatch.setenv("LANGFUSE_TRACING_ENABLED", "false")
    rk.bind("disabled")
    try:
        assert instrument("openai") is False
    finally:
        rk.unbind()


# In a process of its own: openinference takes DSPy's callbacks with it when it is removed.
BOTH = """
import dspy
from openinference.instrumentation.dspy import DSPyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from research_kit.instrumentation.dspy_callback import ObservationCallback

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
dspy.configure(callbacks=[ObservationCallback(get_tracer=lambda: provider.get_tracer("ours"))])
dspy.Tool(lambda: 1, name="first")()
DSPyInstrumentor().instrument(tracer_provider=provider)
class Second(dspy.Module):
    def forward(self):
        return dspy.Prediction()
Second()()
print(*[f"{span.instrumentation_scope.name}:{span.name}" for span in exporter.get_finished_spans()])
"""


def test_openinference_for_dspy_wins() -> None:
    """While openinference observes DSPy there is one tree, openinference's."""
    run = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    first, *rest = run.stdout.split()
    assert first == "ours:first"
    assert rest == ["openinference.instrumentation.dspy:Second.forward"]

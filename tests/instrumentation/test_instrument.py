"""Calls made with a provider's own library are observed when the user asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from scripted_lm import running_lm

import research_kit as rk
from research_kit.errors import ConfigError
from research_kit.instrumentation import instrument, uninstrument
from research_kit.store import ensure_running, stop_store

PROGRAM = """
import sys
import research_kit as rk
import dspy, openai

address = sys.argv[1]
assert rk.instrument("openai") is False  # nothing is bound yet
rk.bind("libraries", user_id="ada")
for name in ("openai", "openai", "litellm", "anthropic", "dspy"):
    assert rk.instrument(name)
import anthropic, litellm
assert rk.budget().used.input_tokens == 0

client = openai.OpenAI(base_url=address, api_key="test")
messages = [{"role": "user", "content": "what colour is the sky?"}]
ask = dict(model="gpt-4o-mini", messages=messages)
with rk.trace_span("openai"):
    assert client.chat.completions.create(**ask).choices[0].message.content == "blue is the sky"
with rk.trace_span("openai, streamed"):
    pieces = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "green is the sky"
with rk.trace_span("litellm"):
    litellm.completion(model="openai/gpt-4o-mini", api_base=address, api_key="test", messages=messages)
with rk.trace_span("anthropic"):
    native = anthropic.Anthropic(base_url=address.removesuffix("/v1"), api_key="test", max_retries=0)
    native.messages.create(model="claude-sonnet-4-5", messages=messages, max_tokens=20)
with rk.trace_span("dspy"):
    dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="test", cache=False, engine="litellm")("hello")
rk.uninstrument("openai"); rk.uninstrument("litellm")
client.chat.completions.create(**ask)
assert rk.flush()
rk.wait_for("libraries", 10)
frame = rk.observations_df("libraries")
used = rk.budget().used
sums = frame[frame["type"] == "GENERATION"][["input_tokens", "output_tokens"]].sum().tolist()
assert [used.input_tokens, used.output_tokens] == sums, (used, sums)
columns = ["observation_id", "parent_observation_id", "type", "name", "model", "session_id", "user_id"]
columns += ["input_tokens", "output_tokens"]
print(frame[columns].to_json(orient="records"))
"""


def test_calls_of_libraries_are_generations(tmp_path: Path) -> None:
    """Each call is one generation, with model, tokens and session, and counts once in the budget."""
    environ = {
        **os.environ,
        "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    ensure_running(tmp_path / "data")
    try:
        with running_lm() as server:
            answers = ["blue is the sky", "green is the sky", *["blue is the sky"] * 2, "hello you"]
            server.script(*answers, "not observed")
            run = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), server.base_url],
                env=environ,
                capture_output=True,
                text=True,
                timeout=120,
            )
    finally:
        stop_store(tmp_path / "data")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.strip().splitlines()[-1])
    spans = {row["observation_id"]: row["name"] for row in rows if row["type"] == "SPAN"}
    calls = {spans[row["parent_observation_id"]]: row for row in rows if row["type"] == "GENERATION"}
    assert set(calls) == {"openai", "openai, streamed", "litellm", "anthropic", "dspy"}
    assert len(rows) == 2 * len(calls)
    assert {(row["session_id"], row["user_id"]) for row in rows} == {("libraries", "ada")}
    for name, call in calls.items():
        model = call["model"].removeprefix("openai/")
        assert model in ("claude-sonnet-4-5", "gpt-4o-mini", "scripted-model")
        assert (call["input_tokens"], call["output_tokens"]) == ((1, 2) if name == "dspy" else (5, 4))


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

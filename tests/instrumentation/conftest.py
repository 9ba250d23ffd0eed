"""Observations of one test, kept in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_lm import ScriptedLM, running_lm

from research_kit.instrumentation.dspy_callback import ObservationCallback
from research_kit.instrumentation.dspy_wrappers import wrap_dspy


class Seen:
    """What ended so far, by name."""

    def __init__(self, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
        self._exporter = exporter
        self.tracer = provider.get_tracer("langfuse-sdk")

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def value(self, name: str, key: str) -> Any:
        text = (self.one(name).attributes or {}).get(f"langfuse.observation.{key}")
        return None if text is None else json.loads(str(text))

    def kind(self, name: str) -> Any:
        return (self.one(name).attributes or {})["langfuse.observation.type"]

    def parent_of(self, span: ReadableSpan) -> str | None:
        if span.parent is None:
            return None
        names = {own.context.span_id: own.name for own in self.all() if own.context is not None}
        return names[span.parent.span_id]


@pytest.fixture
def seen() -> Iterator[Seen]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    result = Seen(exporter, provider)
    wrap_dspy()
    with dspy.context(callbacks=[ObservationCallback(get_tracer=lambda: result.tracer)]):
        yield result


@pytest.fixture
def scripted() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()

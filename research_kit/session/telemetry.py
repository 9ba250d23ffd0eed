"""Switching tracing on: the one Langfuse client of the process and the processors on its provider.

Owns the heavy imports and their order; identity is given to it. Invariant: there is at most one client per
process, because Langfuse's SDK keeps the first and disables itself when keys differ.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from langfuse import Langfuse
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from research_kit.config import Settings
from research_kit.errors import ConfigError
from research_kit.session.backend import Backend
from research_kit.session.delivery import DeliveryProcessor
from research_kit.session.export_filter import should_export_span
from research_kit.session.guard import guarded
from research_kit.session.ids import OwnIdGenerator
from research_kit.session.mcp_baggage import carry_session_on_mcp_calls
from research_kit.session.scores import ScoreTransport
from research_kit.session.stamping import Stamp, StampingProcessor

__all__ = ["Telemetry", "start_telemetry"]

# Langfuse copies every attribute of a foreign scope into the metadata; ours are Langfuse's own attributes.
_SCOPE = "langfuse-sdk"
_MEDIA_VARIABLE = "LANGFUSE_MEDIA_UPLOAD_ENABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What tracing consists of while it is on."""

    client: Langfuse
    delivery: DeliveryProcessor
    tracer: trace.Tracer
    add_processor: Callable[[SpanProcessor], None]

    def flush(self, timeout_s: float) -> bool:
        """Send what has ended; False when something is left after ``timeout_s`` seconds."""
        self._collect_scores()
        return self.delivery.force_flush(int(timeout_s * 1000))

    def shutdown(self) -> None:
        """Send what is left, for as long as an exit may take."""
        self._collect_scores()
        self.delivery.shutdown()

    def _collect_scores(self) -> None:
        """Let the scores that Langfuse's client still holds reach the spool."""
        with guarded("scores"), self.delivery.flushes_put_off():
            self.client.flush()


class _DiscardingExporter(SpanExporter):
    """Leaves delivery to `DeliveryProcessor`; Langfuse's own would print its failures into cells."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open."""


def _is_starting_export(span: ReadableSpan) -> bool:
    # Asked when a span starts, Langfuse marks the roots of what is exported; asked at its end, it would queue
    # the span for an exporter that has nothing to do.
    return span.end_time is None and should_export_span(span)


@contextmanager
def _media_inside() -> Iterator[None]:
    """Let a client that is made here leave images inside their observations, unless the user wants otherwise.

    Langfuse's own uploads lose what they cannot send, print so into cells, and hold up the exit.
    """
    if os.environ.get(_MEDIA_VARIABLE):
        yield
        return
    os.environ[_MEDIA_VARIABLE] = "false"
    try:
        yield
    finally:
        os.environ.pop(_MEDIA_VARIABLE, None)


def _start_client(settings: Settings, backend: Backend, delivery: DeliveryProcessor) -> Langfuse:
    return Langfuse(
        public_key=backend.public_key,
        # Without one, the client would take the key from the environment that must not be sent.
        secret_key=backend.secret_key or "not-sent",
        base_url=backend.base_url,
        environment=settings.environment,
        release=settings.release,
        id_generator=OwnIdGenerator(),
        span_exporter=_DiscardingExporter(),
        should_export_span=_is_starting_export,
        # A server elsewhere may lead from http to https; the embedded store does not.
        httpx_client=httpx.Client(
            transport=ScoreTransport(delivery.add_score, verify=backend.state != "local")
        ),
        # Else a score of its own would stay a second in memory before it reaches the spool.
        flush_at=1,
    )


def start_telemetry(
    settings: Settings, backend: Backend, delivery: DeliveryProcessor, *, get_stamp: Callable[[], Stamp]
) -> Telemetry:
    """Create the Langfuse client and put stamping and delivery on the provider that it uses.

    Args:
        settings: The environment and release of the client.
        backend: The server that the client's API functions talk to.
        delivery: Takes what has ended.
        get_stamp: Returns the session attributes of new spans.

    Raises:
        ConfigError: When another library has set up a tracer provider that takes no processors.
    """
    with _media_inside():
        client = _start_client(settings, backend, delivery)
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        raise ConfigError(
            f"The OpenTelemetry tracer provider is a {type(provider).__name__}, which takes no span "
            "processors. Load research_kit before the library that sets it, or unset OTEL_SDK_DISABLED."
        )
    # After Langfuse's processor, so that attributes propagated by user code are already there and win.
    provider.add_span_processor(StampingProcessor(get_stamp))
    provider.add_span_processor(delivery)
    carry_session_on_mcp_calls()
    telemetry = Telemetry(
        client=client,
        delivery=delivery,
        tracer=provider.get_tracer(_SCOPE, attributes={"public_key": backend.public_key}),
        add_processor=provider.add_span_processor,
    )
    # Runs before Langfuse's own exit handler, which would flush the provider without a deadline.
    atexit.register(telemetry.shutdown)
    return telemetry

"""Switching tracing on: the one Langfuse client of the process and the processors on its provider.

Owns the heavy imports and their order; identity is given to it. Invariant: there is at most one client of
ours per process, because Langfuse's SDK keeps the first and disables itself when keys differ. Which of the
clients that user code makes are ours, `langfuse_clients` decides.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
from langfuse import Langfuse, LangfuseOtelSpanAttributes
from langfuse.api import AsyncLangfuseAPI
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from research_kit.config import Settings
from research_kit.errors import ConfigError
from research_kit.session.backend import Backend
from research_kit.session.delivery import EXIT_DEADLINE_S, DeliveryProcessor
from research_kit.session.export_filter import LANGFUSE_SCOPE, is_of_project, should_export_span
from research_kit.session.guard import guarded
from research_kit.session.ids import OwnIdGenerator
from research_kit.session.mcp_baggage import carry_session_on_mcp_calls
from research_kit.session.scores import ClientTransport, ScoreTransport
from research_kit.session.stamping import Stamp, StampingProcessor
from research_kit.wire import no_cookies

__all__ = ["ClientPlan", "Telemetry", "is_sent_by_langfuse", "plan_client", "start_telemetry"]

_MEDIA_VARIABLE = "LANGFUSE_MEDIA_UPLOAD_ENABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What tracing consists of while it is on.

    Attributes:
        client: Langfuse's client for the project of the session.
        delivery: Takes what has ended.
        tracer: Begins observations of our own.
        add_processor: Lets a processor see the spans of the process.
        is_sent_by_langfuse: Whether Langfuse's SDK sends the observations itself, past mask and spool.
    """

    client: Langfuse
    delivery: DeliveryProcessor
    tracer: trace.Tracer
    add_processor: Callable[[SpanProcessor], None]
    is_sent_by_langfuse: bool = False

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


def _only_at_start(should_export: Callable[[ReadableSpan], bool]) -> Callable[[ReadableSpan], bool]:
    # Asked when a span starts, Langfuse marks the roots of what is exported; asked at its end, it would queue
    # the span for an exporter that has nothing to do.
    return lambda span: span.end_time is None and should_export(span)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPlan:
    """How the Langfuse client of this process is made, whoever makes it first.

    Attributes:
        backend: The server that it is for.
        delivery: Takes what has ended.
        arguments: Those of `langfuse.Langfuse`; among them an exporter that leaves delivery to ``delivery``.
        is_sent_by_langfuse: Whether an earlier client of the same keys sends by itself.
    """

    backend: Backend
    delivery: DeliveryProcessor
    arguments: Mapping[str, Any]
    is_sent_by_langfuse: bool

    def make_client(self) -> Langfuse:
        """Return the client, made now or before; Langfuse has a lock of its own around the making."""
        with _media_inside():
            return Langfuse(**{**_provider_after_main_thread(), **self.arguments})


def _provider_after_main_thread() -> dict[str, TracerProvider]:
    """Return the argument that lets a client be made in a thread that has outlived the main one.

    Langfuse's own provider asks detectors in a thread pool, which Python does not start any more by then.
    """
    if threading.main_thread().is_alive():
        return {}
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider(resource=Resource.get_empty(), id_generator=OwnIdGenerator())
        trace.set_tracer_provider(provider)
    return {"tracer_provider": cast(TracerProvider, trace.get_tracer_provider())}


def plan_client(
    settings: Settings, backend: Backend, delivery: DeliveryProcessor, *, given: Mapping[str, Any]
) -> ClientPlan:
    """Plan the Langfuse client; makes none, so that it takes no lock of Langfuse's.

    Args:
        settings: The environment and release of the client.
        backend: The server that the client's API functions talk to.
        delivery: Takes what has ended.
        given: What user code says about its client; it wins over the settings.
    """
    said = {name: value for name, value in given.items() if value is not None}
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # An older provider has one, and Langfuse would warn.
        said.setdefault("id_generator", OwnIdGenerator())
    arguments = {
        "environment": settings.environment,
        "release": settings.release,
        **said,
        "public_key": backend.public_key,
        # Without one, the client would take the key from the environment that must not be sent.
        "secret_key": backend.secret_key or "not-sent",
        "base_url": backend.base_url,
        "span_exporter": _DiscardingExporter(),
        "should_export_span": _only_at_start(said.get("should_export_span", should_export_span)),
        "httpx_client": _api_client(backend, delivery, said.get("httpx_client")),
        # Else a score of its own would stay a second in memory before it reaches the spool.
        "flush_at": 1,
    }
    return ClientPlan(
        backend=backend,
        delivery=delivery,
        arguments=arguments,
        is_sent_by_langfuse=is_sent_by_langfuse(backend.public_key),
    )


def _api_client(backend: Backend, delivery: DeliveryProcessor, given: httpx.Client | None) -> httpx.Client:
    """Return the client of Langfuse's API functions, whose scores go the way of observations."""
    network = backend.transport()
    if network is None:
        # A server elsewhere may lead from http to https, so its way has certificates.
        network = httpx.HTTPTransport() if given is None else ClientTransport(given)
    transport = ScoreTransport(delivery.add_score, network=network)
    return httpx.Client(transport=transport, cookies=no_cookies())


def _lead_async_api(client: Langfuse, backend: Backend) -> None:
    """Lead the SDK's asynchronous API to the store; its own way is the port, whoever listens there."""
    from research_kit.store.transports import async_transport_to

    client.async_api = AsyncLangfuseAPI(
        base_url=backend.base_url,
        username=backend.public_key,
        password=backend.secret_key,
        x_langfuse_public_key=backend.public_key,
        httpx_client=httpx.AsyncClient(transport=async_transport_to(backend)),
    )


def is_sent_by_langfuse(public_key: str) -> bool:
    """Say whether Langfuse's SDK already exports the observations of this project.

    It marks the root of each trace that it exports; this one is never ended and so goes nowhere.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return False
    tracer = provider.get_tracer(LANGFUSE_SCOPE, attributes={"public_key": public_key})
    span = tracer.start_span("research-kit looks for an exporter", context=Context())
    return isinstance(span, ReadableSpan) and LangfuseOtelSpanAttributes.IS_APP_ROOT in (
        span.attributes or {}
    )


class _ProjectProcessor(SpanProcessor):
    """Hands on the spans of one project; what a client for another project records is that client's.

    A framework that shuts the provider down flushes what has ended; the process goes on, and so does this.
    """

    def __init__(self, public_key: str, processors: Sequence[SpanProcessor]) -> None:
        self._public_key = public_key
        self._processors = processors

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if is_of_project(span, self._public_key):
            for processor in self._processors:
                processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if is_of_project(span, self._public_key):
            for processor in self._processors:
                processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return all([processor.force_flush(timeout_millis) for processor in self._processors])

    def shutdown(self) -> None:
        self.force_flush(int(EXIT_DEADLINE_S * 1000))


def start_telemetry(plan: ClientPlan, client: Langfuse, *, get_stamp: Callable[[], Stamp]) -> Telemetry:
    """Put stamping and delivery on the provider that the Langfuse client uses.

    Args:
        plan: How the client was made.
        client: The client.
        get_stamp: Returns the session attributes of new spans.

    Raises:
        ConfigError: When another library has set up a tracer provider that takes no processors.
    """
    provider = cast(TracerProvider, plan.arguments.get("tracer_provider") or trace.get_tracer_provider())
    # Not by its type: other libraries put providers of their own around OpenTelemetry's.
    if not callable(getattr(provider, "add_span_processor", None)):
        raise ConfigError(
            f"The OpenTelemetry tracer provider is a {type(provider).__name__}, which takes no span "
            "processors. Load research_kit before the library that sets it, or unset OTEL_SDK_DISABLED."
        )
    processors: list[SpanProcessor] = [StampingProcessor(get_stamp)]
    if not plan.is_sent_by_langfuse:
        processors.append(plan.delivery)
    # After Langfuse's processor, so that attributes propagated by user code are already there and win.
    provider.add_span_processor(_ProjectProcessor(plan.backend.public_key, processors))
    carry_session_on_mcp_calls()
    if plan.backend.state == "local":
        _lead_async_api(client, plan.backend)
        if hasattr(os, "register_at_fork"):
            # In a forked process the SDK makes its own anew.
            os.register_at_fork(after_in_child=lambda: _lead_async_api(client, plan.backend))
    telemetry = Telemetry(
        client=client,
        delivery=plan.delivery,
        # Langfuse copies every attribute of a foreign scope into the metadata; ours are Langfuse's own.
        tracer=provider.get_tracer(LANGFUSE_SCOPE, attributes={"public_key": plan.backend.public_key}),
        add_processor=provider.add_span_processor,
        is_sent_by_langfuse=plan.is_sent_by_langfuse,
    )
    # Runs before Langfuse's own exit handler, which would flush the provider without a deadline.
    atexit.register(telemetry.shutdown)
    return telemetry

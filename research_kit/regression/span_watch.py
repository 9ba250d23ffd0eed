"""The observations of this process as they end, for checks that cannot wait until they can be read back.

Owns the reading of spans; sends nothing. Invariant: it sees what is sent, and keeps no inputs and outputs.
"""

from __future__ import annotations

from threading import Lock

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import format_span_id, format_trace_id

from research_kit.regression.trace_facts import Observed
from research_kit.session.attribute_names import SESSION_ID
from research_kit.session.export_filter import is_sent
from research_kit.session.guard import guarded
from research_kit.session.span_figures import span_figures

__all__ = ["SpanWatch"]


class SpanWatch(SpanProcessor):
    """Keeps the facts of every observation that has ended."""

    def __init__(self) -> None:
        self._observed: list[Observed] = []
        self._lock = Lock()

    def on_end(self, span: ReadableSpan) -> None:
        """Take the facts of ``span``."""
        with guarded("trace check"):
            if is_sent(span):
                observed = _observed(span)
                with self._lock:
                    self._observed.append(observed)

    def observed(self) -> list[Observed]:
        """Return what has ended so far."""
        with self._lock:
            return list(self._observed)


def _observed(span: ReadableSpan) -> Observed:
    context, started_ns, ended_ns = span.get_span_context(), span.start_time or 0, span.end_time or 0
    read = span_figures(span)
    return Observed(
        trace_id=format_trace_id(context.trace_id) if context is not None else "",
        observation_id=format_span_id(context.span_id) if context is not None else "",
        parent_id=format_span_id(span.parent.span_id) if span.parent is not None else "",
        facts=read.facts,
        session_id=str((span.attributes or {})[SESSION_ID]),
        start_s=started_ns / 1e9,
        latency_s=(ended_ns - started_ns) / 1e9,
        model=read.model,
        message=read.status_message,
    )

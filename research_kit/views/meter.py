"""What is called meanwhile: the LM calls of this process between two moments.

Owns the counting of spans as they start and end; makes no report. Invariant: counting costs nothing while
nobody measures, and never breaks what is measured.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import format_span_id, format_trace_id

from research_kit import session
from research_kit.counting import is_lm_type
from research_kit.session.attribute_names import SESSION_ID
from research_kit.session.span_figures import span_figures
from research_kit.traces.frames import build_observations

__all__ = ["Measurement", "meter"]


class Measurement:
    """What began after `Meter.start` and before `stop`, on any thread and in any task.

    Attributes:
        is_counted: Whether anything could be seen; False while tracing is off.
        latency_s: Seconds between the two; None until it is stopped.
        running_count: LM calls that had not ended when it was stopped.
    """

    def __init__(self, owner: Meter, *, is_counted: bool) -> None:
        self.is_counted = is_counted
        self.latency_s: float | None = None
        self.running_count = 0
        self._owner = owner
        self._started_s = time.perf_counter()
        self._open: dict[int, Span] = {}
        self._rows: list[dict[str, Any]] = []

    def begin(self, span: Span) -> None:
        """Take note that ``span`` has started."""
        self._open[span.get_span_context().span_id] = span

    def end(self, span: ReadableSpan) -> None:
        """Count ``span`` when it began here."""
        context = span.get_span_context()
        if context is not None and self._open.pop(context.span_id, None) is not None:
            self._rows.append(_row(span))

    def stop(self) -> None:
        """End it; what is still running is not counted."""
        self._owner.remove(self)
        self.latency_s = time.perf_counter() - self._started_s
        # What a span is may be known only after it has begun.
        self.running_count = sum(is_lm_type(span_figures(span).facts.type) for span in self._open.values())
        self._open.clear()

    def to_frame(self) -> pd.DataFrame:
        """Return what was seen as a frame of observations."""
        return build_observations(self._rows)


class Meter(SpanProcessor):
    """Tells measurements which spans start and end in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measurements: tuple[Measurement, ...] = ()

    def start(self) -> Measurement:
        """Begin to measure."""
        measurement = Measurement(self, is_counted=session.activate())
        with self._lock:
            self._measurements = (*self._measurements, measurement)
        session.kernel_session().watch(self)
        return measurement

    def remove(self, measurement: Measurement) -> None:
        """Tell ``measurement`` nothing more."""
        with self._lock:
            self._measurements = tuple(known for known in self._measurements if known is not measurement)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tell who measures."""
        for measurement in self._measurements:
            with session.guarded("measuring a cost"):
                measurement.begin(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Tell who measures."""
        for measurement in self._measurements:
            with session.guarded("measuring a cost"):
                measurement.end(span)


_meter = Meter()


def meter() -> Meter:
    """Return the meter of this process."""
    return _meter


def _row(span: ReadableSpan) -> dict[str, Any]:
    """Return a span as a server would send it, as far as costs need it."""
    context, read = span.get_span_context(), span_figures(span)
    assert context is not None
    return {
        "id": format_span_id(context.span_id),
        "traceId": format_trace_id(context.trace_id),
        "parentObservationId": None if span.parent is None else format_span_id(span.parent.span_id),
        "sessionId": (span.attributes or {}).get(SESSION_ID),
        "type": read.facts.type,
        "name": read.facts.name,
        "startTime": datetime.fromtimestamp((span.start_time or 0) / 1e9, UTC).isoformat(),
        "model": read.model or None,
        "level": "ERROR" if read.facts.is_error else "DEFAULT",
        "usageDetails": dict(read.usage),
        "inputUsage": read.facts.input_tokens or 0,
        "outputUsage": read.facts.output_tokens or 0,
        "totalUsage": read.facts.total_tokens or 0,
        "costDetails": dict(read.cost),
    }

"""What a span of this process is and used, as a server will say it.

Owns the step from OpenTelemetry's spans to the embedded store's reading of them; adds nothing up. Invariant:
what is counted before a server has it is what the store makes of it, its price table included.
"""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from research_kit.session.span_attributes import span_attributes
from research_kit.store.rows import Figures, read_figures
from research_kit.store.spans import Origin, Span

__all__ = ["Figures", "span_figures"]


def span_figures(span: ReadableSpan) -> Figures:
    """Read ``span``, which may still be open."""
    context, scope = span.get_span_context(), span.instrumentation_scope
    return read_figures(
        Span(
            origin=Origin(
                resource_attributes=dict(span.resource.attributes),
                scope_name=scope.name if scope is not None else "",
                scope_version=(scope.version or "") if scope is not None else "",
                scope_attributes={},
            ),
            trace_id=format_trace_id(context.trace_id) if context is not None else "",
            span_id=format_span_id(context.span_id) if context is not None else "",
            parent_id=format_span_id(span.parent.span_id) if span.parent is not None else None,
            name=span.name,
            start_ns=span.start_time,
            end_ns=span.end_time,
            status_code=span.status.status_code.value,
            status_message=span.status.description or "",
            attributes=span_attributes(span),
            events=[],
        )
    )

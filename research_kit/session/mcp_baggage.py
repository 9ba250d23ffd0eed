"""Session and user of the caller on MCP calls, whoever makes them.

The MCP SDK sends the trace context and the baggage of the caller with each call; the names are those that
Langfuse's SDK reads in the server's process. Owns what is put into the baggage; invariant: it is there on MCP
calls only, so that no other server learns it.
"""

from __future__ import annotations

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace import ReadableSpan

from research_kit.session.attribute_names import SESSION_ID, USER_ID
from research_kit.session.export_filter import MCP_SCOPE
from research_kit.session.guard import guarded
from research_kit.session.span_attributes import span_attributes

__all__ = ["carry_session_on_mcp_calls"]

_BAGGAGE = {SESSION_ID: "langfuse_session_id", USER_ID: "langfuse_user_id"}


class _SessionPropagator(TextMapPropagator):
    """Does what ``inner`` does, with the session in the baggage while the current span is an MCP call."""

    def __init__(self, inner: TextMapPropagator) -> None:
        self._inner = inner

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        with guarded("MCP call"):
            context = _with_session(context)
        self._inner.inject(carrier, context, setter)

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        return self._inner.extract(carrier, context, getter)

    @property
    def fields(self) -> set[str]:
        return self._inner.fields


def carry_session_on_mcp_calls() -> None:
    """Let the spans of MCP servers in other processes have the session of their caller."""
    if not isinstance(get_global_textmap(), _SessionPropagator):
        set_global_textmap(_SessionPropagator(get_global_textmap()))


def _with_session(context: Context | None) -> Context | None:
    span = trace.get_current_span(context)
    scope = span.instrumentation_scope if isinstance(span, ReadableSpan) else None
    if not isinstance(span, ReadableSpan) or scope is None or scope.name != MCP_SCOPE:
        return context
    attributes = span_attributes(span)
    for attribute, name in _BAGGAGE.items():
        if attributes.get(attribute):
            context = baggage.set_baggage(name, str(attributes[attribute]), context)
    return context

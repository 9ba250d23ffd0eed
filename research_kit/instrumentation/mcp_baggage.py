"""Session and user of the caller on MCP calls.

The MCP SDK sends the trace context and the baggage of the caller with each call; the names are those that
Langfuse's SDK reads in the server's process. Owns what is put into the baggage; invariant: it is there during
an MCP call only, so that no other server learns it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from research_kit import session

__all__ = ["caller_baggage"]

_BAGGAGE = {"session.id": "langfuse_session_id", "user.id": "langfuse_user_id"}


@contextmanager
def caller_baggage() -> Iterator[None]:
    """Put session and user of the current observation into the baggage while inside."""
    # Before tracing is on there is nothing to carry, and nothing is imported for it.
    if session.kernel_session().telemetry is None or "opentelemetry.sdk.trace" not in sys.modules:
        yield
        return
    from opentelemetry import baggage, context

    carried = context.get_current()
    for name, value in _caller().items():
        carried = baggage.set_baggage(_BAGGAGE[name], value, carried)
    token = context.attach(carried)
    try:
        yield
    finally:
        context.detach(token)


def _caller() -> dict[str, str]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan

    span = trace.get_current_span()
    # An open trace keeps the session it began with, whatever is bound now.
    own = (span.attributes or {}) if isinstance(span, ReadableSpan) else {}
    values = (
        own
        if "session.id" in own
        else {"session.id": session.current_session_id(), "user.id": session.current_user_id()}
    )
    return {name: str(values[name]) for name in _BAGGAGE if values.get(name)}

"""The observations of this process as they end, for checks that cannot wait until they can be read back.

Owns the reading of spans; sends nothing. Invariant: it sees what is sent, and keeps no inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from research_kit.regression.trace_facts import Observed
from research_kit.session.attribute_names import OBSERVATION, SESSION_ID
from research_kit.session.export_filter import MCP_SCOPE, is_sent
from research_kit.session.guard import guarded
from research_kit.session.lm_spans import LMUsage, is_lm_call, model_name
from research_kit.session.span_attributes import span_attributes

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
                observed = _observed(span, span_attributes(span))
                with self._lock:
                    self._observed.append(observed)

    def observed(self) -> list[Observed]:
        """Return what has ended so far."""
        with self._lock:
            return list(self._observed)


def _observed(span: ReadableSpan, attributes: Mapping[str, Any]) -> Observed:
    context, started_ns, ended_ns = span.get_span_context(), span.start_time or 0, span.end_time or 0
    used = LMUsage.of(attributes)
    message = str(attributes.get(OBSERVATION + "status_message") or span.status.description or "")
    is_error = attributes.get(OBSERVATION + "level") == "ERROR" or span.status.status_code.name == "ERROR"
    kind, name = _kind(span, attributes)
    return Observed(
        observation_id=format(context.span_id, "016x") if context is not None else "",
        parent_id=format(span.parent.span_id, "016x") if span.parent is not None else "",
        kind=kind,
        name=name,
        session_id=str(attributes[SESSION_ID]),
        start_s=started_ns / 1e9,
        latency_s=(ended_ns - started_ns) / 1e9,
        model=model_name(attributes),
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_usd=used.cost_usd,
        error=(message or "failed") if is_error else "",
    )


def _kind(span: ReadableSpan, attributes: Mapping[str, Any]) -> tuple[str, str]:
    scope = span.instrumentation_scope
    if scope is not None and scope.name == MCP_SCOPE:
        is_call = attributes.get("mcp.method.name") == "tools/call"
        return ("tool" if is_call else "other"), span.name.rpartition(" ")[2]
    if is_lm_call(attributes):
        return "lm", span.name
    return ("tool" if attributes.get(OBSERVATION + "type") == "tool" else "other"), span.name

"""The observations of this process as they end, for checks that cannot wait until they can be read back.

Owns the reading of spans; sends nothing. Invariant: it sees what is sent, and keeps no inputs and outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from threading import Lock
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from research_kit.regression.trace_facts import Observed
from research_kit.session.export_filter import MCP_SCOPE, should_export_span
from research_kit.session.guard import guarded
from research_kit.session.span_attributes import span_attributes

__all__ = ["SpanWatch"]

_OBSERVATION = "langfuse.observation."
_LM_KINDS = frozenset({"generation", "embedding"})


class SpanWatch(SpanProcessor):
    """Keeps the facts of every observation that has ended."""

    def __init__(self) -> None:
        self._observed: list[Observed] = []
        self._lock = Lock()

    def on_end(self, span: ReadableSpan) -> None:
        """Take the facts of ``span``."""
        with guarded("trace check"):
            attributes = span_attributes(span)
            if "session.id" in attributes and should_export_span(span):
                observed = _observed(span, attributes)
                with self._lock:
                    self._observed.append(observed)

    def observed(self) -> list[Observed]:
        """Return what has ended so far."""
        with self._lock:
            return list(self._observed)


def _observed(span: ReadableSpan, attributes: Mapping[str, Any]) -> Observed:
    context, started_ns, ended_ns = span.get_span_context(), span.start_time or 0, span.end_time or 0
    usage = _json(attributes, "usage_details")
    cost = _json(attributes, "cost_details").get("total")
    message = str(attributes.get(_OBSERVATION + "status_message") or span.status.description or "")
    is_error = attributes.get(_OBSERVATION + "level") == "ERROR" or span.status.status_code.name == "ERROR"
    kind, name = _kind(span, attributes)
    return Observed(
        observation_id=format(context.span_id, "016x") if context is not None else "",
        parent_id=format(span.parent.span_id, "016x") if span.parent is not None else "",
        kind=kind,
        name=name,
        session_id=str(attributes["session.id"]),
        start_s=started_ns / 1e9,
        latency_s=(ended_ns - started_ns) / 1e9,
        model=str(attributes.get(_OBSERVATION + "model.name") or ""),
        input_tokens=_tokens(usage, "input"),
        output_tokens=_tokens(usage, "output"),
        cost_usd=None if cost is None else float(cost),
        error=(message or "failed") if is_error else "",
    )


def _kind(span: ReadableSpan, attributes: Mapping[str, Any]) -> tuple[str, str]:
    scope = span.instrumentation_scope
    if scope is not None and scope.name == MCP_SCOPE:
        is_call = attributes.get("mcp.method.name") == "tools/call"
        return ("tool" if is_call else "other"), span.name.rpartition(" ")[2]
    given = attributes.get(_OBSERVATION + "type")
    if given in _LM_KINDS:
        return "lm", span.name
    return ("tool" if given == "tool" else "other"), span.name


def _json(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = json.loads(attributes.get(_OBSERVATION + name) or "{}")
    return value if isinstance(value, dict) else {}


def _tokens(usage: Mapping[str, Any], side: str) -> int:
    return sum(int(count) for key, count in usage.items() if key.startswith(side))

"""DSPy calls as observations: agent, chain, tool, retriever, evaluator and generation, with tokens and cost.

Owns the translation from DSPy's callbacks to spans; identity and delivery belong to the session. Invariant:
every span that a call begins is ended when the call ends, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer

from research_kit import session
from research_kit.config import captures_io
from research_kit.instrumentation.instrumentors import is_instrumented
from research_kit.instrumentation.lm_scope import LMScope
from research_kit.instrumentation.usage import CallUsage, LMCall
from research_kit.instrumentation.values import as_json, call_inputs, in_short, is_finish_tool
from research_kit.session.attribute_names import OBSERVATION

__all__ = ["ObservationCallback", "Outcome"]

# The DSPy setting that tells worker threads which observation started them; DSPy copies settings to them.
_ANCHOR = "research_kit_anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenCall:
    span: Span
    token: Token[Context]
    lm_call: LMCall | None = None
    lm_scope: LMScope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchor:
    """The observation below which workers go on, while no DSPy call newer than ``call_id`` is active."""

    span: Span
    call_id: str | None


@dataclass(slots=True)
class Outcome:
    """What an observed call returned; set by the caller."""

    value: Any = None


class ObservationCallback(BaseCallback):
    """Opens one observation per DSPy module, LM and tool call.

    Args:
        get_tracer: Returns the tracer of a new observation; by default that of the kernel's session.
    """

    def __init__(self, get_tracer: Callable[[], Tracer | None] | None = None) -> None:
        self._get_tracer = get_tracer or _session_tracer
        self._open: dict[str, _OpenCall] = {}
        self._lock = Lock()

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open an observation for a module call."""
        with session.guarded("DSPy module"):
            self._start(call_id, type(instance).__name__, _module_type(instance), call_inputs(inputs))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Close a module's observation."""
        with session.guarded("DSPy module"):
            self._end(call_id, outputs, exception)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open an observation for a tool call."""
        with session.guarded("DSPy tool"):
            if is_finish_tool(instance):
                return
            name = getattr(instance, "name", None) or type(instance).__name__
            self._start(call_id, str(name), "tool", call_inputs(inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Close a tool's observation."""
        with session.guarded("DSPy tool"):
            self._end(call_id, outputs, exception)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open a generation for an LM call."""
        with session.guarded("DSPy LM"):
            model = str(instance.model)
            span = self._start(call_id, model, "generation", LMCall.of(instance, inputs).request)
            if span is None:
                return
            parameters = {**getattr(instance, "kwargs", {}), **(inputs.get("kwargs") or {})}
            span.set_attribute(OBSERVATION + "model.name", model)
            span.set_attribute(OBSERVATION + "model.parameters", as_json(_shown_parameters(parameters)))
            scope = LMScope(span)
            lm_call = LMCall.of(instance, inputs, tracker=scope.tracker)
            self._open[call_id] = replace(self._open[call_id], lm_call=lm_call, lm_scope=scope)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Close a generation with the tokens and cost of the call."""
        with session.guarded("DSPy LM"):
            call = self._open.get(call_id)
            if call is not None and call.lm_call is not None:
                lm_call = call.lm_call
                _set_usage(call.span, lm_call.measure() if exception is None else lm_call.measure_failed())
            self._end(call_id, outputs, exception)

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open an evaluator for an evaluation."""
        with session.guarded("DSPy evaluation"):
            given = {key: value for key, value in inputs.items() if value is not None}
            shown = {"metric": instance.metric, "devset": instance.devset, **given}
            self._start(call_id, type(instance).__name__, "evaluator", in_short(shown))

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Close an evaluation with its score."""
        with session.guarded("DSPy evaluation"):
            self._end(call_id, {"score": outputs.score} if outputs is not None else None, exception)

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Open a chain for an optimiser's run."""
        with session.guarded("DSPy optimiser"):
            self._start(call_id, type(instance).__name__, "chain", in_short(inputs))

    def on_compile_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Close an optimiser's run."""
        with session.guarded("DSPy optimiser"):
            self._end(call_id, None if outputs is None else type(outputs).__name__, exception)

    @contextmanager
    def observe(self, name: str, kind: str, inputs: Any, *, model: str | None = None) -> Iterator[Outcome]:
        """Observe what happens inside, worker threads of DSPy included, as one call."""
        call_id, outcome = uuid.uuid4().hex, Outcome()
        with session.guarded("DSPy call"):
            span = self._start(call_id, name, kind, inputs)
            if span is not None and model is not None:
                span.set_attribute(OBSERVATION + "model.name", model)
        opened = self._open.get(call_id)
        anchor = _Anchor(span=opened.span, call_id=ACTIVE_CALL_ID.get()) if opened is not None else None
        try:
            with dspy.context(**{_ANCHOR: anchor}):
                yield outcome
        except BaseException as error:
            with session.guarded("DSPy call"):
                self._end(call_id, None, error)
            raise
        with session.guarded("DSPy call"):
            self._end(call_id, outcome.value, None)

    def _start(self, call_id: str, name: str, kind: str, inputs: Any) -> Span | None:
        # Two instrumentations of the same calls would be two trees in each other.
        tracer = None if is_instrumented("dspy") else self._get_tracer()
        if tracer is None:
            return None
        span = tracer.start_span(name, context=self._parent_context())
        span.set_attribute(OBSERVATION + "type", kind)
        if captures_io():
            span.set_attribute(OBSERVATION + "input", as_json(inputs))
        token = otel_context.attach(trace.set_span_in_context(span))
        with self._lock:
            self._open[call_id] = _OpenCall(span=span, token=token)
        return span

    def _end(self, call_id: str, outputs: Any, exception: BaseException | None) -> None:
        with self._lock:
            call = self._open.pop(call_id, None)
        if call is None:
            return
        if call.lm_scope is not None:
            call.lm_scope.leave()
        _detach(call.token)
        if exception is not None:
            _set_failure(call.span, exception)
        elif outputs is not None and captures_io():
            call.span.set_attribute(OBSERVATION + "output", as_json(outputs))
        call.span.end()

    def _parent_context(self) -> Context | None:
        if trace.get_current_span().get_span_context().is_valid:
            return None
        # DSPy's own worker threads carry its active call and its settings, and nothing of OpenTelemetry.
        active_id, anchor = ACTIVE_CALL_ID.get(), dspy.settings.get(_ANCHOR)
        if isinstance(anchor, _Anchor) and anchor.call_id == active_id:
            return trace.set_span_in_context(anchor.span)
        parent = self._open.get(active_id or "")
        return trace.set_span_in_context(parent.span) if parent is not None else None


def _session_tracer() -> Tracer | None:
    return session.get_tracer() if session.activate() else None


def _module_type(instance: Any) -> str:
    if isinstance(instance, dspy.ReAct):
        return "agent"
    return "retriever" if isinstance(instance, dspy.Retrieve) else "chain"


def _shown_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    shown = {}
    for key, value in parameters.items():
        if value is None or key.startswith("api_") or key in ("headers", "extra_headers"):
            continue
        # A response format may be a class; its schema is in the request, its name is enough here.
        shown[key] = value.__name__ if isinstance(value, type) else value
    return shown


def _set_usage(span: Span, usage: CallUsage) -> None:
    if usage.details:
        span.set_attribute(OBSERVATION + "usage_details", as_json(usage.details))
    if usage.cost_usd is not None:
        span.set_attribute(OBSERVATION + "cost_details", as_json({"total": usage.cost_usd}))
    span.set_attribute(OBSERVATION + "metadata.cache_hit", as_json(usage.is_cache_hit))


def _set_failure(span: Span, exception: BaseException) -> None:
    is_cancelled = isinstance(exception, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)
    span.set_attribute(OBSERVATION + "level", "WARNING" if is_cancelled else "ERROR")
    text = "cancelled" if is_cancelled else f"{type(exception).__name__}: {exception}"
    span.set_attribute(OBSERVATION + "status_message", text)


def _detach(token: Token[Context]) -> None:
    try:
        token.var.reset(token)
    except ValueError:
        # The call ended in another context than it began in, as when a generator is closed by the garbage
        # collector; the context it began in is gone with its task.
        return

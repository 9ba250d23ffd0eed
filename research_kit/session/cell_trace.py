"""Cells as traces: the root observation of a cell, begun when the first observation inside it begins.

Owns root observations, and the context in which a cell runs; which cell runs is in `cells`. Invariants: a
cell in which nothing was observed leaves nothing, and an observation is a child of the cell's root in the
session that is current when it begins.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakValueDictionary

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import INVALID_SPAN, INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, Tracer
from opentelemetry.util.types import AttributeValue

from research_kit.config import captures_io
from research_kit.session.attribute_names import OBSERVATION, TRACE_METADATA, TRACE_NAME
from research_kit.session.cells import Cell, running_cells
from research_kit.session.export_filter import is_sent
from research_kit.session.facts import session_facts
from research_kit.session.guard import guarded

__all__ = ["CellTrace", "CellTraces", "start_cell_traces"]

# Not in Langfuse's trace metadata, which children inherit: facts about the session are on roots only.
_ROOT_METADATA = OBSERVATION + "metadata."
# A context that is not empty: in an empty one Langfuse's processor looks at the current context instead, and
# the root would take what user code propagates to a part of the cell only.
_ROOT_CONTEXT = otel_context.set_value("research-kit-cell-root", True, Context())


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class _Root:
    """A root observation of a cell; more than one when the session changes while the cell runs."""

    span: trace.Span
    session_id: str
    owner: CellTrace
    is_observed: bool = False
    is_ended: bool = False


class CellTrace:
    """The trace of one cell."""

    def __init__(self, cell: Cell, traces: CellTraces) -> None:
        self.cell = cell
        self._traces = traces
        self._roots: list[_Root] = []
        # Re-entrant, because starting a root runs processors that may ask for it.
        self._lock = threading.RLock()

    def find_root(self) -> _Root | None:
        """Return the root of the session that is current, beginning it when needed; None when unbound."""
        with self._lock:
            session_id = self._traces.get_session_id()
            newest = self._roots[-1] if self._roots else None
            if newest is not None and (newest.session_id == session_id or self.cell.ending is not None):
                return newest
            if session_id is None:
                return None
            root = _Root(span=self._start(), session_id=session_id, owner=self)
            self._roots.append(root)
            self._traces.register(root)
            return root

    def note_observed(self, root: _Root) -> None:
        """Keep ``root``: an observation happens inside it, maybe after the cell itself."""
        with self._lock:
            root.is_observed = True
            if self.cell.ending is not None:
                self._end(root)
            else:
                self._traces.mark_open(root.span)

    def finish(self) -> None:
        """End the roots in which something was observed; the others are never ended and so never sent."""
        if self.cell.is_named:
            root = self.find_root()
            if root is not None:
                root.is_observed = True
        with self._lock:
            for root in self._roots:
                if root.is_observed:
                    self._end(root)

    def _start(self) -> trace.Span:
        attributes: dict[str, AttributeValue] = {
            TRACE_NAME: self.cell.name,
            OBSERVATION + "type": "span",
            **cell_metadata(self.cell),
        }
        return self._traces.tracer.start_span(
            self.cell.name,
            context=_ROOT_CONTEXT,
            attributes=attributes,
            start_time=self.cell.start_time_ns,
        )

    def _end(self, root: _Root) -> None:
        ending = self.cell.ending
        if root.is_ended or ending is None:
            return
        root.is_ended = True
        root.span.set_attributes(_session_metadata())
        root.span.set_attribute(TRACE_METADATA + "outcome", json.dumps(ending.outcome))
        if ending.outcome != "success":
            is_error = ending.outcome == "error"
            root.span.set_attribute(OBSERVATION + "level", "ERROR" if is_error else "WARNING")
            shown = ending.message if captures_io() else ending.message.partition(":")[0]
            root.span.set_attribute(OBSERVATION + "status_message", shown)
        root.span.end(end_time=self.cell.end_time_ns)


class CellSpan(NonRecordingSpan):
    """Stands for the cell in its context; the root begins when it is asked for as a parent."""

    def __init__(self, owner: CellTrace) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self.owner = owner

    def get_span_context(self) -> SpanContext:
        """Return the root's context."""
        with guarded("cell"):
            root = self.owner.find_root()
            if root is not None:
                return root.span.get_span_context()
        return INVALID_SPAN_CONTEXT


class CellTraces(SpanProcessor):
    """Gives cells their traces, and observations without a parent the cell that they happen in.

    Args:
        tracer: Begins the roots.
        get_session_id: Returns the session that is current; None when there is none.
        mark_open: Writes a root down, in case the kernel dies before the cell ends.
    """

    def __init__(
        self,
        tracer: Tracer,
        get_session_id: Callable[[], str | None],
        mark_open: Callable[[trace.Span], None],
    ) -> None:
        self.tracer = tracer
        self.get_session_id = get_session_id
        self.mark_open = mark_open
        self._roots: WeakValueDictionary[int, _Root] = WeakValueDictionary()
        # Keeps the root of each open observation, also when its cell is long over.
        self._open: dict[int, _Root] = {}

    def enter(self) -> None:
        """Let what follows in the cell of this thread and context happen inside its trace."""
        cell = running_cells.of_this_thread()
        if cell is None:
            return
        current = trace.get_current_span()
        is_of_earlier_cell = isinstance(current, CellSpan) and current.owner.cell is not cell
        if current is INVALID_SPAN or is_of_earlier_cell:
            otel_context.attach(trace.set_span_in_context(CellSpan(self._trace_of(cell))))

    def leave(self, cell: Cell) -> None:
        """Finish the trace of ``cell``, and let nothing that follows in this context happen inside it."""
        if cell.is_named:
            self._trace_of(cell)
        if cell.trace is not None:
            cell.trace.finish()
        current = trace.get_current_span()
        is_ended = isinstance(current, ReadableSpan) and current.end_time is not None
        if isinstance(current, CellSpan) or is_ended:
            otel_context.attach(trace.set_span_in_context(INVALID_SPAN))

    def register(self, root: _Root) -> None:
        """Watch what happens inside ``root``."""
        self._roots[root.span.get_span_context().trace_id] = root

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take note of an observation inside a cell; tell one without a parent which cell it happens in."""
        with guarded("cell span start"):
            context = span.get_span_context()
            root = self._roots.get(context.trace_id)
            if root is None and span.parent is None:
                root = self._adopt(span, parent_context)
            if root is not None:
                self._open[context.span_id] = root
                self._note(root, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Keep the cell's trace when ``span`` is sent."""
        with guarded("cell span end"):
            context = span.get_span_context()
            root = self._open.pop(context.span_id, None) if context is not None else None
            if root is not None:
                self._note(root, span)  # what an instrumentation calls its span may be known only now

    def _note(self, root: _Root, span: ReadableSpan) -> None:
        if not root.is_observed and is_sent(span):
            root.owner.note_observed(root)

    def _trace_of(self, cell: Cell) -> CellTrace:
        if cell.trace is None:
            cell.trace = CellTrace(cell, self)
        return cell.trace

    def _adopt(self, span: Span, parent_context: Context | None) -> _Root | None:
        if parent_context is _ROOT_CONTEXT:
            return None
        span.set_attributes(_session_metadata())
        # An explicitly empty context asks for a trace of its own, as a chat message does.
        cell = running_cells.only_one() if parent_context is None or len(parent_context) else None
        root = self._trace_of(cell).find_root() if cell is not None else None
        if cell is None or root is None:
            return None
        span.set_attributes(cell_metadata(cell))
        trace_id = trace.format_trace_id(root.span.get_span_context().trace_id)
        span.set_attribute(TRACE_METADATA + "cell_trace_id", json.dumps(trace_id))
        return root


def start_cell_traces(
    tracer: Tracer,
    add_processor: Callable[[SpanProcessor], None],
    get_session_id: Callable[[], str | None],
    mark_open: Callable[[trace.Span], None],
) -> CellTraces:
    """Return the traces of cells, at work on the tracer provider that ``add_processor`` belongs to."""
    traces = CellTraces(tracer, get_session_id, mark_open)
    add_processor(traces)
    return traces


def cell_metadata(cell: Cell) -> dict[str, AttributeValue]:
    """Return the attributes by which an observation says which cell it happened in."""
    return {TRACE_METADATA + key: json.dumps(value) for key, value in cell.describe().items()}


def _session_metadata() -> dict[str, AttributeValue]:
    return dict(_encoded_facts(tuple(session_facts().items())))


@lru_cache(maxsize=8)
def _encoded_facts(facts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    # The same for every root, until git has answered or the notebook is renamed.
    return tuple((_ROOT_METADATA + key, json.dumps(value)) for key, value in facts)

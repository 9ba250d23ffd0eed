"""The session of this process: what is bound, whether it is traced, and how it stands.

Owns the one `KernelSession` behind a lock; contextvars do not reach threads and kernel subshells. Invariant:
nothing heavy is imported and no server is asked before something observed happens.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from research_kit.config import is_tracing_enabled, load_settings
from research_kit.errors import ResearchKitError
from research_kit.session.backend import (
    Backend,
    fetch_project_id,
    key_refusal,
    plan_backend,
    resolve_backend,
    spool_folder,
)
from research_kit.session.children import find_inheritance, pass_on
from research_kit.session.facts import start_finding_commit
from research_kit.session.guard import guarded, take_telemetry_faults
from research_kit.session.identity import (
    Identity,
)
from research_kit.session.langfuse_clients import LangfuseClients
from research_kit.session.status import SessionState, SessionStatus
from research_kit.sources import withdraw_mixed

if TYPE_CHECKING:
    from langfuse import Langfuse
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

    from research_kit.masking import Mask
    from research_kit.session.cell_trace import CellTraces
    from research_kit.session.cells import Cell
    from research_kit.session.stamping import Stamp
    from research_kit.session.telemetry import ClientPlan, Telemetry

__all__ = [
    "KernelSession",
    "activate",
    "current_session_id",
    "current_user_id",
    "flush",
    "get_tracer",
    "kernel_session",
    "mark_open",
    "status",
]

# An unusable backend is asked again after this time, so that not every call waits for it.
_RETRY_S = 30.0


class KernelSession:
    """One kernel, one Langfuse session at a time.

    Attributes:
        is_active: Whether observing can have an effect: something is bound, and tracing was enabled when last
            asked, which is when a session is bound and before each cell, not per observation.
        resumed_session_id: The session that was resumed last.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._identity: Identity | None = None
        self._stamp: Stamp = {}
        self._telemetry: Telemetry | None = None
        self._backend: Backend | None = None
        self._activation_fault = ""
        self._retry_at_s = 0.0
        self._plan: ClientPlan | None = None
        self._clients = LangfuseClients(self)
        self._is_enabled = True
        # Plain, because it is looked at for every observation, also while nothing is traced.
        self.is_active = False
        # What child processes are told of the user's mask; None when it is a function, which cannot be.
        self._mask_patterns: tuple[str, ...] | None = ()
        self._cells: CellTraces | None = None
        self._since = datetime.now(UTC)
        self._watchers: list[SpanProcessor] = []
        self._listeners: list[Callable[[], None]] = []
        self.resumed_session_id: str | None = None
        with guarded("child process"):
            self._inherit()

    def _inherit(self) -> None:
        inherited = find_inheritance()
        if inherited is None:
            return
        if inherited.identity is None:
            self._clients.watch()
            return
        if inherited.mask_patterns:
            self.set_mask(inherited.mask_patterns)
        self.set_identity(inherited.identity)

    @property
    def identity(self) -> Identity | None:
        """Who is bound now; None when nothing is."""
        return self._identity

    @property
    def telemetry(self) -> Telemetry | None:
        """The running telemetry; None before the first observed thing and while nothing is bound."""
        return self._telemetry if self._identity is not None else None

    @property
    def running_telemetry(self) -> Telemetry | None:
        """The telemetry that delivers, also while nothing is bound any more."""
        return self._telemetry

    @property
    def backend(self) -> Backend | None:
        """The server of the running telemetry."""
        return self._backend

    @property
    def plan(self) -> ClientPlan | None:
        """How the Langfuse client of this process is made; None before anything asked for it."""
        return self._plan

    def refresh_enabled(self) -> None:
        """Ask the environment again whether telemetry is wanted, and whether its keys belong together."""
        withdraw_mixed(os.environ)
        is_enabled = is_tracing_enabled()
        if is_enabled is not self._is_enabled:
            self._is_enabled, self._since = is_enabled, datetime.now(UTC)
        self.is_active = is_enabled and self._identity is not None
        # Also without tracing: a client must not complete its keys with a file's address.
        if self._identity is not None:
            self._clients.watch()

    def set_identity(self, identity: Identity | None) -> None:
        """Bind ``identity``; new traces carry it at once, open ones keep theirs."""
        with self._lock:
            if (identity is None) is not (self._identity is None):
                self._since = datetime.now(UTC)
            self._identity = identity
            self.refresh_enabled()
            pass_on(identity, self._mask_patterns)
            self._stamp = {}
            if self._telemetry is not None and identity is not None:
                self._stamp = _stamp_of(identity)

    def set_mask(self, mask: Mask) -> None:
        """Take ``mask`` out of everything that is recorded or written from now on.

        Raises:
            ConfigError: When it holds an expression that cannot be used.
        """
        from research_kit.masking import process_mask

        process_mask().add(_withholding(mask) if callable(mask) else mask)
        self._mask_patterns = process_mask().patterns

    def watch(self, processor: SpanProcessor) -> None:
        """Let ``processor`` see the spans of this process, from when tracing is on; once, if asked again.

        It sees the end of spans that are open already, and not their start.
        """
        with self._lock:
            if processor in self._watchers:
                return
            self._watchers.append(processor)
            if self._telemetry is not None:
                self._telemetry.add_processor(processor)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, from the delivery thread, when `status` has changed; return what ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _tell_listeners(self) -> None:
        for listener in list(self._listeners):
            listener()

    def activate(self) -> Telemetry | None:
        """Switch tracing on when a session is bound and tracing is enabled; cheap when it is on already.

        Raises:
            ResearchKitError: When the backend cannot be used.
        """
        if not self.is_active:
            return None
        if self._telemetry is None:
            self.refresh_enabled()
            if not self.is_active:
                return None
            self._switch_on({})
        if self._telemetry is not None and self._cells is not None:
            with guarded("cell"):
                self._cells.enter()
        return self._telemetry

    def leave_cell(self, cell: Cell) -> None:
        """Finish the trace of a cell that has ended."""
        if self._cells is not None:
            self._cells.leave(cell)

    def status(self) -> SessionStatus:
        """Say how things stand, from what is known already; asks no server."""
        identity, settings = self._identity, load_settings()
        if identity is None:
            reason = "no session is bound; research_kit.bind() binds one"
            return self._disabled(reason)
        if not is_tracing_enabled():
            name = (
                "OTEL_SDK_DISABLED is true"
                if settings.is_tracing_enabled
                else "LANGFUSE_TRACING_ENABLED is false"
            )
            return self._disabled(name)
        fault = self._activation_fault or key_refusal(settings)
        known = SessionStatus(
            state="connected" if settings.public_key else "local",
            session_id=identity.session_id,
            user_id=identity.user_id,
            base_url=settings.base_url if settings.public_key else None,
            reason=fault or settings.data_dir_notice,
            notice=self._clients.notice,
            faults=tuple(take_telemetry_faults().items()),
            since=self._since,
        )
        if self._telemetry is None or self._backend is None:
            return replace(known, state="buffering") if fault else known
        return self._with_delivery(known, self._telemetry, self._backend)

    def refresh_backend(self) -> Backend:
        """Return the server for a delivery, starting the embedded store again when it is gone."""
        backend = resolve_backend()
        if backend.state == "connected" and self._backend is not None:
            backend = replace(backend, project_id=self._backend.project_id)
        self._backend = backend
        return backend

    def find_project(self) -> None:
        """Learn the project id, which page addresses need; called when the server has answered."""
        backend = self._backend
        if backend is not None and backend.project_id is None:
            self._backend = replace(backend, project_id=fetch_project_id(backend))

    def prepare_client(self, given: Mapping[str, Any]) -> ClientPlan | None:
        """Switch tracing on with what user code says about its Langfuse client; None when that fails.

        While nothing is bound any more, only the plan is made: what such a client records is not kept.
        """
        with guarded("activation"):
            if self.is_active:
                if self._telemetry is None:
                    self._switch_on(given)
                self.activate()
            elif load_settings().public_key:
                self._make_plan(given)
        return self._plan

    def find_earlier_client(self) -> None:
        """Switch tracing on at once when a Langfuse client is older than the session."""
        public_key = load_settings().public_key
        if self._telemetry is None and self.is_active and public_key and "langfuse" in sys.modules:
            from research_kit.session.telemetry import is_sent_by_langfuse

            if is_sent_by_langfuse(public_key):
                self._switch_on({})

    def _switch_on(self, given: Mapping[str, Any]) -> None:
        try:
            start_finding_commit()  # git answers while the libraries are imported
            # Langfuse holds a lock of its own while it makes clients, and Python one while it imports; who
            # holds one of these may be on the way to ours, so neither is asked for while ours is held.
            import langfuse  # noqa: F401

            plan = self._make_plan(given)
            if plan is not None:
                self._start(plan, plan.make_client())
        except Exception as error:
            is_ours = isinstance(error, ResearchKitError)
            kind = "" if is_ours else f"tracing cannot be switched on: {type(error).__name__}: "
            self._activation_fault = f"{kind}{error}"
            self._retry_at_s = time.monotonic() + _RETRY_S
            raise

    def _make_plan(self, given: Mapping[str, Any]) -> ClientPlan | None:
        """Return how the Langfuse client is made; None while a failure is too recent to try again."""
        from research_kit.masking import process_mask
        from research_kit.session.delivery import DeliveryProcessor
        from research_kit.session.export_filter import sent_if
        from research_kit.session.telemetry import plan_client

        with self._lock:
            if time.monotonic() < self._retry_at_s:
                return None
            if self._plan is None:
                self._backend = plan_backend()
                settings = load_settings()
                delivery = DeliveryProcessor(
                    self.refresh_backend,
                    spool_folder(settings.data_dir, self._backend),
                    should_export=sent_if(given.get("should_export_span")),
                    mask=process_mask(),
                    on_delivered=self.find_project,
                    on_change=self._tell_listeners,
                    limit_bytes=int(settings.spool_max_mb * 1024 * 1024),
                )
                plan = plan_client(settings, self._backend, delivery, given=given)
                self._plan = replace(plan, is_sent_by_langfuse=True) if self._clients.exports_itself else plan
            return self._plan

    def _start(self, plan: ClientPlan, client: Langfuse) -> None:
        from research_kit.session.cell_trace import start_cell_traces
        from research_kit.session.telemetry import start_telemetry

        with self._lock:
            if self._telemetry is not None:
                return
            telemetry = start_telemetry(plan, client, get_stamp=lambda: self._stamp)
            self._activation_fault = ""
            for processor in self._watchers:
                telemetry.add_processor(processor)
            with guarded("cell"):
                self._cells = start_cell_traces(
                    telemetry.tracer, telemetry.add_processor, current_session_id, mark_open
                )
            if self._identity is not None:
                self._stamp = _stamp_of(self._identity)
            # Last, because other threads look at it without the lock.
            self._telemetry = telemetry
        if plan.is_sent_by_langfuse:
            self._clients.warn_of_own_export()

    def _with_delivery(self, known: SessionStatus, telemetry: Telemetry, backend: Backend) -> SessionStatus:
        delivery = telemetry.delivery.state
        state: SessionState = backend.state
        if delivery.outcome in ("buffering", "rejected"):
            state = delivery.outcome
        elif not backend.secret_key:
            state = "buffering"  # keys that must not be sent: traces wait until they belong together
        return replace(
            known,
            state=state,
            base_url=backend.base_url,
            session_url=backend.session_url(known.session_id) if known.session_id else None,
            reason=delivery.reason or backend.notice or known.reason,
            pending_count=delivery.pending_count,
            delivered_count=delivery.delivered_count,
            lost_count=delivery.lost_count,
            refused_count=delivery.aside_count,
            since=known.since if delivery.since is None else datetime.fromtimestamp(delivery.since, UTC),
        )

    def _disabled(self, reason: str) -> SessionStatus:
        # What ended before may still wait.
        waiting_count = self._telemetry.delivery.state.pending_count if self._telemetry is not None else 0
        return SessionStatus(state="disabled", reason=reason, since=self._since, pending_count=waiting_count)


def _withholding(function: Callable[[str], str]) -> Callable[[str], str]:
    """Return ``function`` for texts that nobody may see when it fails."""

    def mask(text: str) -> str:
        from research_kit.masking import MASK

        with guarded("masking function"):
            result = function(text)
            if not isinstance(result, str):
                raise TypeError(f"the masking function returned {type(result).__name__}, not a string")
            return result
        return MASK

    return mask


def _stamp_of(identity: Identity) -> Stamp:
    from research_kit.session.stamping import identity_attributes

    return identity_attributes(identity)


_current = KernelSession()


def kernel_session() -> KernelSession:
    """Return the session object of this process."""
    return _current


def activate() -> bool:
    """Switch tracing on when a session is bound; False when it stays off.

    A backend that cannot be used leaves tracing off, with the reason in `status`.
    """
    with guarded("activation"):
        return _current.activate() is not None
    return False


def status() -> SessionStatus:
    """Return how the session of this kernel stands; asks no server."""
    return _current.status()


def current_session_id() -> str | None:
    """Return the session that new traces belong to; None when nothing is bound."""
    identity = _current.identity
    return identity.session_id if identity is not None else None


def current_user_id() -> str | None:
    """Return the user that new traces belong to."""
    identity = _current.identity
    return identity.user_id if identity is not None else None


def flush(timeout_s: float = 10.0) -> bool:
    """Send what has ended; False when something is left after ``timeout_s`` seconds."""
    telemetry = _current.running_telemetry
    return telemetry is None or telemetry.flush(timeout_s)


def mark_open(span: Span) -> None:
    """Write a root down while it is open: if this kernel dies, it is delivered as an error."""
    telemetry = _current.telemetry
    if telemetry is None or telemetry.is_sent_by_langfuse:
        return
    from opentelemetry.sdk.trace import Span as RecordingSpan

    if isinstance(span, RecordingSpan):
        with guarded("open root"):
            telemetry.delivery.mark_open(span)


def get_tracer() -> Tracer:
    """Return the tracer for observations of this session; one that does nothing when tracing is off."""
    telemetry = _current.activate()
    if telemetry is not None:
        return telemetry.tracer
    from opentelemetry.trace import NoOpTracer

    return NoOpTracer()

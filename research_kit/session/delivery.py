"""Bringing ended spans and scores from the spool to the server, off the researcher's threads.

Owns the one delivery thread, retries and the delivery state; what an answer means is decided in `sending`.
Invariants: what ended is in the spool before anything is sent, it leaves the spool when the server has taken
it, `on_end` never waits for a server, and shutdown takes at most its deadline.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from weakref import WeakSet, WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from research_kit.masking import CurrentMask
from research_kit.session.backend import Backend
from research_kit.session.children import call_at_child_exit
from research_kit.session.dispatch import FIRST_RETRY_S, LAST_RETRY_S, Dispatch, Outcome
from research_kit.session.encoding import encode_span, span_key
from research_kit.session.guard import guarded, take_telemetry_faults
from research_kit.session.sending import Sender
from research_kit.session.spool import DEFAULT_LIMIT_BYTES, NO_KEY, Kind, Spool, SpoolKey
from research_kit.session.spools import REFUSED_SUFFIX, Loss, Spools, spool_paths

__all__ = ["DeliveryProcessor", "DeliveryState", "deliver_spools"]

# With the interpreter's own exit, a kernel is gone within two seconds.
EXIT_DEADLINE_S = 1.5
_BATCH_DELAY_S = 0.3
# A process may end while this one goes on; what it left is looked for this often.
_ADOPTION_INTERVAL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryState:
    """How delivery stands.

    Attributes:
        outcome: ``idle`` before the first delivery, then the outcome of the latest.
        reason: Why deliveries are held back; empty when they are not.
        since: When the outcome became what it is, in seconds since 1970; None before the first delivery.
        pending_count: Entries that the server has not accepted yet, those of earlier processes included.
        delivered_count: Entries that the server has accepted.
        lost_count: Entries given up because the spool was full.
        refused_count: Entries that this process has set aside for their content; kept in a file of their own.
        aside_count: Entries that are set aside in all.
    """

    outcome: Literal["idle", "delivered", "buffering", "rejected"] = "idle"
    reason: str = ""
    since: float | None = None
    pending_count: int = 0
    delivered_count: int = 0
    lost_count: int = 0
    refused_count: int = 0
    aside_count: int = 0


class DeliveryProcessor(SpanProcessor):
    """Writes ended spans to the spool and delivers it from one daemon thread.

    Args:
        get_backend: Returns the server to send to.
        folder: Where the spools of this destination are.
        should_export: Says whether a span is kept at all.
        mask: Takes secrets out before anything reaches the disk; by default the built-in rules.
        on_delivered: Called when the server has taken something, the first time and after each fault.
        on_change: Called when the outcome has become another one.
        limit_bytes: How large the file of what waits may become.
    """

    def __init__(
        self,
        get_backend: Callable[[], Backend],
        folder: Path,
        *,
        should_export: Callable[[ReadableSpan], bool],
        mask: CurrentMask | None = None,
        on_delivered: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self._get_backend = get_backend
        self._folder, self._limit_bytes = folder, limit_bytes
        self._should_export = should_export
        self.mask = mask or CurrentMask()
        self._on_delivered, self._on_change = on_delivered, on_change
        self._began_ns = 0
        self._start_empty()
        _processors.add(self)

    def _start_empty(self) -> None:
        self._puts_flushes_off = False
        self._spools = Spools(self._folder, limit_bytes=self._limit_bytes)
        self._unmarked_roots: WeakValueDictionary[int, Span] = WeakValueDictionary()
        self._changed = threading.Condition()
        self._state = DeliveryState()
        self._sender = Sender(self._get_backend)
        self._dispatch = Dispatch(self._spools, self._sender, self._tell, self._greet)
        self._adopt_again_s = 0.0
        # Requests to send now, and how many of them the batch in flight already honours.
        self._wake_count = 0
        self._honoured_wake_count = 0
        self._flush_count = 0
        # How many entries must wait for the thread to be woken; while it is busy, none do.
        self._wanted_count: float = 1
        self._is_adoption_wanted = True
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> DeliveryState:
        """How delivery stands now."""
        with self._changed:
            return replace(
                self._state,
                reason="; ".join(filter(None, (self._state.reason, self._spools.fault))),
                pending_count=self._spools.waiting_count,
                lost_count=self._spools.lost_count,
                refused_count=self._spools.refused_count,
                aside_count=self._spools.aside_count,
            )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note that a root is open once something has begun inside it."""
        with guarded("span start"):
            if span.parent is None:
                self._unmarked_roots[span.get_span_context().span_id] = span
            elif (root := self._unmarked_roots.get(span.parent.span_id)) is not None:
                self.mark_open(root)

    def mark_open(self, span: Span) -> None:
        """Write ``span`` down while it is open: if this process dies, it is delivered as an error."""
        self._unmarked_roots.pop(span.get_span_context().span_id, None)
        # A root from before a fork is open in the parent, whose word on it counts.
        if (span.start_time or 0) >= self._began_ns and span.is_recording():
            self._append(Kind.OPEN, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Write ``span`` to the spool when it belongs into a trace."""
        with guarded("span end"):
            context = span.get_span_context()
            if span.parent is None and context is not None:
                # What a thread begins inside it later does not open it again.
                self._unmarked_roots.pop(context.span_id, None)
            if self._should_export(span):
                self._append(Kind.SPAN, span)
                self._announce()

    def add_score(self, payload: bytes) -> None:
        """Write a score to the spool: a JSON object as the server takes it."""
        self._write(Kind.SCORE, self.mask.masker()(payload.decode()).encode())
        self._announce()

    def force_flush(self, timeout_millis: int = 5_000) -> bool:
        """Send what waits, also of processes that are gone; False when something is left in the end."""
        return self._puts_flushes_off or self._flush(timeout_millis / 1000, gives_up=False)

    @contextmanager
    def flushes_put_off(self) -> Iterator[None]:
        """Let a flush of the tracer provider, which asks every processor, pass by here."""
        self._puts_flushes_off = True
        try:
            yield
        finally:
            self._puts_flushes_off = False

    def shutdown(self) -> None:
        """Send what is left while the server takes it, at most 1.5 s; the rest waits in the spool.

        What neither the server nor the disk has taken is lost, which one line on standard error says.
        """
        if self._is_closed:
            return
        self._flush(EXIT_DEADLINE_S, gives_up=True)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        _say_lost(self._spools.release())

    def _flush(self, timeout_s: float, *, gives_up: bool) -> bool:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            failures_before = self._dispatch.failure_count
            self._is_adoption_wanted = True
            self.retry_now()
            self._ensure_thread()
            self._flush_count += 1
            try:
                while self._is_adoption_wanted or self._spools.waiting_count:
                    left_s = deadline_s - time.monotonic()
                    if gives_up and self._dispatch.not_before_s > deadline_s:
                        return False
                    if left_s <= 0 or self._is_closed or self._thread is None or not self._thread.is_alive():
                        return False
                    if gives_up and self._dispatch.failure_count > failures_before:
                        return False
                    # Short waits, so that an interrupt of the kernel is noticed.
                    self._changed.wait(min(left_s, 0.2))
            finally:
                self._flush_count -= 1
        return True

    def retry_now(self) -> None:
        """End the wait after a failure, but for one that the server asked for itself."""
        with self._changed:
            self._wake_count += 1
            self._changed.notify_all()

    def _append(self, kind: Kind, span: ReadableSpan) -> None:
        self._write(kind, encode_span(span, self.mask.masker()), span_key(span))

    def _write(self, kind: Kind, payload: bytes, key: SpoolKey = NO_KEY) -> None:
        while not self._spools.own().append(kind, payload, key=key):
            pass  # given up by a shutdown in this moment; the next one is another

    def _announce(self) -> None:
        # Without the lock: what is wanted is set before the thread looks whether it is there.
        if self._is_enough():
            with self._changed:
                self._ensure_thread()
                self._changed.notify_all()

    def _ensure_thread(self) -> None:
        if not self._is_closed and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="research-kit-delivery", daemon=True)
            self._thread.start()
            call_at_child_exit(self.shutdown)

    def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while self._wait_for_work():
            wait_s = self._deliver()
            if wait_s is None:
                retry_s = FIRST_RETRY_S
                continue
            if not self._pause(wait_s or retry_s):
                break
            retry_s = min(retry_s * 2, LAST_RETRY_S)
        self._sender.close()

    def _deliver(self) -> float | None:
        """Send what is next; a fault of ours is a reason in the state, and no end of the thread."""
        with guarded("delivery"):
            self._adopt()
            return self._dispatch.step()
        fault = take_telemetry_faults().get("delivery", "")
        self._tell("buffering", f"a fault inside research-kit holds up the delivery: {fault}")
        return LAST_RETRY_S

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._collect()
            if not self._has_work():
                self._wanted_count = 1
                self._changed.wait_for(self._has_work)
                self._collect()
            self._wanted_count = math.inf
            self._honoured_wake_count = self._wake_count
            return not self._is_closed

    def _collect(self) -> None:
        """Let entries gather for a moment; being woken by each of them would only cost time."""
        self._wanted_count = self._dispatch.batch_size
        self._changed.wait_for(
            lambda: self._is_awaited() or self._flush_count > 0 or self._is_enough(), _BATCH_DELAY_S
        )

    def _has_work(self) -> bool:
        return self._is_closed or self._is_adoption_wanted or self._spools.waiting_count > 0

    def _is_enough(self) -> bool:
        return self._spools.waiting_count >= self._wanted_count

    def _is_awaited(self) -> bool:
        return self._is_closed or self._wake_count != self._honoured_wake_count

    def _pause(self, wait_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(self._is_awaited, wait_s)
            while not self._is_closed and (left_s := self._dispatch.not_before_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return not self._is_closed

    def _adopt(self) -> None:
        """Take over the spools of processes that are gone."""
        now_s = time.monotonic()
        if not self._is_adoption_wanted and now_s < self._adopt_again_s:
            return
        self._adopt_again_s = now_s + _ADOPTION_INTERVAL_S
        self._spools.adopt()
        with self._changed:
            self._is_adoption_wanted = False
            self._changed.notify_all()

    def _greet(self) -> None:
        if self._state.outcome != "delivered":
            with guarded("project"):
                self._on_delivered()

    def _tell(self, outcome: Outcome, reason: str, delivered_count: int = 0) -> None:
        with self._changed:
            known = self._state
            self._state = DeliveryState(
                outcome=outcome,
                reason=reason,
                since=known.since if known.outcome == outcome else time.time(),
                delivered_count=known.delivered_count + delivered_count,
            )
            self._changed.notify_all()
        if (known.outcome, known.reason) != (outcome, reason):
            with guarded("change of state"):
                self._on_change()


def _say_lost(loss: Loss) -> None:
    # The terminal's own: a kernel that ends shows no outputs any more.
    terminal = sys.__stderr__
    if not loss.entry_count or terminal is None:
        return
    cause = loss.fault.partition(";")[0]
    with suppress(OSError, ValueError):  # closed
        terminal.write(
            f"research-kit: {loss.entry_count} observations were lost: neither sent nor kept, because "
            f"research-kit {cause}.\n"
        )
        terminal.flush()


def deliver_spools(
    get_backend: Callable[[], Backend],
    folder: Path,
    *,
    timeout_s: float,
    includes_refused: bool = False,
    on_change: Callable[[DeliveryState], None] = lambda state: None,
) -> DeliveryState:
    """Deliver what processes that are gone have left in ``folder``, and return how that went.

    Args:
        get_backend: Returns the server.
        folder: The spools of one destination.
        timeout_s: How long to try.
        includes_refused: Try again also what the server had refused for its content.
        on_change: Called with how it stands when that has become something else.
    """
    if includes_refused:
        for path in spool_paths(folder, REFUSED_SUFFIX):
            # One that cannot be taken over belongs to a kernel that lives, or to somebody else.
            with suppress(OSError):
                spool = Spool.adopt(path)
                if spool is not None:
                    path.rename(path.with_suffix(".spool"))
                    spool.close()
    processor = DeliveryProcessor(
        get_backend,
        folder,
        should_export=lambda _: False,
        on_change=lambda: on_change(processor.state),
    )
    processor.force_flush(int(timeout_s * 1000))
    state = processor.state
    processor.shutdown()
    return state


_processors: WeakSet[DeliveryProcessor] = WeakSet()


def _restart_in_child() -> None:
    # The parent delivers what the parent spooled; threads and locks do not survive a fork.
    for processor in list(_processors):
        processor._start_empty()
        processor._began_ns = time.time_ns()
        processor._on_change = lambda: None  # whoever listens is the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_in_child)

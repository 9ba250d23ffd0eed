"""Bringing ended spans and scores from the spool to the server, off the researcher's threads.

Owns the one delivery thread, retries and the delivery state; what an answer means is decided in `sending`.
Invariants: what ended is in the spool before anything is sent, it leaves the spool when the server has taken
it, `on_end` never waits for a server, and shutdown takes at most its deadline.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from research_kit.masking import CurrentMask
from research_kit.session.backend import Backend
from research_kit.session.children import call_at_child_exit
from research_kit.session.encoding import encode_span, shortened, span_key
from research_kit.session.guard import guarded
from research_kit.session.sending import Answer, Sender
from research_kit.session.spool import DEFAULT_LIMIT_BYTES, NO_KEY, Entry, Kind, Spool, SpoolKey
from research_kit.session.spools import REFUSED_SUFFIX, Spools, spool_paths

__all__ = ["DeliveryProcessor", "DeliveryState", "deliver_spools"]

# With the interpreter's own exit, a kernel is gone within two seconds.
EXIT_DEADLINE_S = 1.5
_BATCH_SIZE = 1024
# The server refuses bodies above 5 MB; compressed they are far smaller, but it unpacks them.
_BATCH_BYTES = 4_000_000
_BATCH_DELAY_S = 0.3
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
# A process may end while this one goes on; what it left is looked for this often.
_ADOPTION_INTERVAL_S = 30.0
# So many refusals for content in a row mean that the server takes nothing at all.
_MAX_UNFIT_IN_A_ROW = 5


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
        refused_count: Entries that the server refused whatever the keys; kept in a file of their own.
    """

    outcome: Literal["idle", "delivered", "buffering", "rejected"] = "idle"
    reason: str = ""
    since: float | None = None
    pending_count: int = 0
    delivered_count: int = 0
    lost_count: int = 0
    refused_count: int = 0


class _Batch(NamedTuple):
    spool: Spool
    entries: list[tuple[Entry, bytes]]


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
        self._batch_size = _BATCH_SIZE
        self._failure_count = 0
        self._unfit_count = 0
        # The server asked to be left alone until then.
        self._not_before_s = 0.0
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
                reason=self._state.reason or self._spools.fault,
                pending_count=self._spools.waiting_count,
                lost_count=self._spools.lost_count,
                refused_count=self._spools.refused_count,
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
        """Send what is left while the server takes it, at most 1.5 s; the rest waits in the spool."""
        if self._is_closed:
            return
        self._flush(EXIT_DEADLINE_S, gives_up=True)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._spools.release()

    def _flush(self, timeout_s: float, *, gives_up: bool) -> bool:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            failures_before = self._failure_count
            self._is_adoption_wanted = True
            self.retry_now()
            self._ensure_thread()
            self._flush_count += 1
            try:
                while self._is_adoption_wanted or self._spools.waiting_count:
                    left_s = deadline_s - time.monotonic()
                    if gives_up and self._not_before_s > deadline_s:
                        return False
                    if left_s <= 0 or self._is_closed or self._thread is None or not self._thread.is_alive():
                        return False
                    if gives_up and self._failure_count > failures_before:
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
        sender = Sender(self._get_backend)
        retry_s = _FIRST_RETRY_S
        while self._wait_for_work():
            wait_s: float | None = _LAST_RETRY_S
            with guarded("delivery"):
                wait_s = self._deliver(sender)
            if wait_s is None:
                retry_s = _FIRST_RETRY_S
                continue
            if not self._pause(wait_s or retry_s):
                break
            retry_s = min(retry_s * 2, _LAST_RETRY_S)
        sender.close()

    def _deliver(self, sender: Sender) -> float | None:
        self._adopt()
        batch = self._next_batch()
        return None if batch is None else self._settle(batch, sender.send(batch.entries))

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
        self._wanted_count = self._batch_size
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
            while not self._is_closed and (left_s := self._not_before_s - time.monotonic()) > 0:
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

    def _next_batch(self) -> _Batch | None:
        for spool in self._spools.held():
            entries = spool.take(max_count=self._batch_size, max_bytes=_BATCH_BYTES)
            if entries:
                # A score goes alone.
                return _Batch(spool, entries[:1] if entries[0][0].kind is Kind.SCORE else entries)
        return None

    def _settle(self, batch: _Batch, answer: Answer) -> float | None:
        """Act on the answer; return None to go on, else how long to wait (0: what the back-off says)."""
        entries = [entry for entry, _ in batch.entries]
        if answer.outcome == "taken":
            self._batch_size = min(self._batch_size * 2, _BATCH_SIZE)
            self._unfit_count = 0
            if self._state.outcome != "delivered":
                with guarded("project"):
                    self._on_delivered()
            self._remove(batch.spool, entries, delivered=True)
            return None
        if answer.outcome == "unfit" and len(entries) > 1:
            self._batch_size = len(entries) // 2
            return None
        if answer.is_too_large and _shorten(batch):
            return None
        if answer.outcome == "unfit" and self._unfit_count < _MAX_UNFIT_IN_A_ROW:
            self._unfit_count += 1
            [(entry, payload)] = batch.entries
            self._spools.refuse(entry, payload)
            self._remove(batch.spool, entries, delivered=False)
            self._tell("rejected", f"one entry was refused and is kept aside: {answer.reason}")
            return None
        return self._hold_back(answer)

    def _hold_back(self, answer: Answer) -> float:
        is_away, reason = answer.outcome == "away", answer.reason
        if answer.retry_after_s:
            self._not_before_s = time.monotonic() + answer.retry_after_s
            until = datetime.now(UTC) + timedelta(seconds=answer.retry_after_s)
            reason = f"{reason} and asked to wait until {until:%H:%M:%S} UTC"
        self._failure_count += 1
        self._unfit_count = 0  # the next one that is refused is looked at by itself
        self._tell("buffering" if is_away else "rejected", reason)
        return answer.retry_after_s or (0.0 if is_away else _LAST_RETRY_S)

    def _remove(self, spool: Spool, entries: list[Entry], *, delivered: bool) -> None:
        spool.accept(entries)
        if delivered:
            self._tell("delivered", "", delivered_count=len(entries))
        self._spools.drop_empty(spool)
        with self._changed:
            self._changed.notify_all()

    def _tell(
        self, outcome: Literal["delivered", "buffering", "rejected"], reason: str, *, delivered_count: int = 0
    ) -> None:
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


def _shorten(batch: _Batch) -> bool:
    """Let a single span be sent with its long texts cut; its file keeps them until it is taken."""
    [(entry, payload)] = batch.entries
    shorter = shortened(payload) if entry.kind is Kind.SPAN else None
    if shorter is None or len(shorter) >= len(payload):
        return False
    entry.payload = shorter
    return True


def deliver_spools(
    get_backend: Callable[[], Backend], folder: Path, *, timeout_s: float, includes_refused: bool = False
) -> DeliveryState:
    """Deliver what processes that are gone have left in ``folder``, and return how that went.

    Args:
        get_backend: Returns the server.
        folder: The spools of one destination.
        timeout_s: How long to try.
        includes_refused: Try again also what the server had refused for its content.
    """
    if includes_refused:
        for path in spool_paths(folder, REFUSED_SUFFIX):
            # One that cannot be taken over belongs to a kernel that lives, or to somebody else.
            with suppress(OSError):
                spool = Spool.adopt(path)
                if spool is not None:
                    path.rename(path.with_suffix(".spool"))
                    spool.close()
    processor = DeliveryProcessor(get_backend, folder, should_export=lambda _: False)
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

"""Bringing ended spans and scores from the spool to the server, off the researcher's threads.

Owns the one delivery thread, retries and the delivery state; what an answer means is decided in `sending`.
Invariants: what ended is in the spool before anything is sent, it leaves the spool when the server has taken
it, `on_end` never waits for a server, and shutdown takes at most its deadline.
"""

from __future__ import annotations

import getpass
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from research_kit.session.backend import Backend
from research_kit.session.current_mask import CurrentMask
from research_kit.session.encoding import as_died, encode_span, span_key
from research_kit.session.guard import guarded
from research_kit.session.sending import Answer, Sender
from research_kit.session.spool import NO_KEY, Entry, Kind, Spool, SpoolKey

__all__ = ["DeliveryProcessor", "DeliveryState", "deliver_spools"]

# With the interpreter's own exit, a kernel is gone within two seconds.
EXIT_DEADLINE_S = 1.5
_BATCH_SIZE = 1024
# The server refuses bodies above 5 MB; compressed they are far smaller, but it unpacks them.
_BATCH_BYTES = 4_000_000
_BATCH_DELAY_S = 0.3
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
REFUSED_SUFFIX = ".refused"


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
    """

    def __init__(
        self,
        get_backend: Callable[[], Backend],
        folder: Path,
        *,
        should_export: Callable[[ReadableSpan], bool],
        mask: CurrentMask | None = None,
        on_delivered: Callable[[], None] = lambda: None,
    ) -> None:
        self._get_backend = get_backend
        self._folder = folder
        self._should_export = should_export
        self._mask = mask or CurrentMask()
        self._on_delivered = on_delivered
        self._began_ns = 0
        self._start_empty()
        _processors.add(self)

    def _start_empty(self) -> None:
        self._spool: Spool | None = None
        self._adopted: list[Spool] = []
        self._refused: Spool | None = None
        self._unmarked_roots: WeakValueDictionary[int, Span] = WeakValueDictionary()
        self._changed = threading.Condition()
        self._state = DeliveryState()
        self._batch_size = _BATCH_SIZE
        self._failure_count = 0
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
            spools = self._spools()
            fault = next((spool.fault for spool in spools if spool.fault), "")
            known = self._state
            return DeliveryState(
                outcome=known.outcome,
                reason=known.reason or fault,
                since=known.since,
                pending_count=sum(spool.pending_count for spool in spools),
                delivered_count=known.delivered_count,
                lost_count=sum(spool.lost_count for spool in spools),
                refused_count=known.refused_count,
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
        self._write(Kind.SCORE, self._mask.masker()(payload.decode()).encode())
        self._announce()

    def force_flush(self, timeout_millis: int = 5_000) -> bool:
        """Send what waits, also of processes that are gone; False when something is left in the end."""
        return self._flush(timeout_millis / 1000, gives_up=False)

    def shutdown(self) -> None:
        """Send what is left while the server takes it, at most 1.5 s; the rest waits in the spool."""
        if self._is_closed:
            return
        self._flush(EXIT_DEADLINE_S, gives_up=True)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            given_up = [*self._spools(), *([self._refused] if self._refused is not None else [])]
            # What still ends opens another spool, which the next process delivers.
            self._spool, self._adopted, self._refused = None, [], None
        # Who asks next may take over what is left: another process, or another command in this one.
        for spool in given_up:
            spool.close()

    def _flush(self, timeout_s: float, *, gives_up: bool) -> bool:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            failures_before = self._failure_count
            self._is_adoption_wanted = True
            self.retry_now()
            self._ensure_thread()
            self._flush_count += 1
            try:
                while self._is_adoption_wanted or self._waiting_count():
                    left_s = deadline_s - time.monotonic()
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
        """End the wait after a failure, for instance because the keys were corrected."""
        with self._changed:
            self._wake_count += 1
            self._changed.notify_all()

    def _append(self, kind: Kind, span: ReadableSpan) -> None:
        self._write(kind, encode_span(span, self._mask.masker()), span_key(span))

    def _write(self, kind: Kind, payload: bytes, key: SpoolKey = NO_KEY) -> None:
        while not self._own_spool().append(kind, payload, key=key):
            pass  # given up by a shutdown in this moment; the next one is another

    def _own_spool(self) -> Spool:
        spool = self._spool
        if spool is not None:
            return spool
        with self._changed:
            if self._spool is None:
                self._spool = _create_spool(self._folder)
            return self._spool

    def _spools(self) -> list[Spool]:
        return [*self._adopted, *([self._spool] if self._spool is not None else [])]

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
        return self._is_closed or self._is_adoption_wanted or self._waiting_count() > 0

    def _is_enough(self) -> bool:
        return self._waiting_count() >= self._wanted_count

    def _waiting_count(self) -> int:
        return sum(spool.pending_count for spool in self._spools())

    def _is_awaited(self) -> bool:
        return self._is_closed or self._wake_count != self._honoured_wake_count

    def _pause(self, wait_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(self._is_awaited, wait_s)
            return not self._is_closed

    def _adopt(self) -> None:
        """Take over the spools of processes that are gone."""
        if not self._is_adoption_wanted:
            return
        known = {spool.path for spool in self._spools()}
        found = [path for path in sorted(self._folder.glob("*.spool")) if path not in known]
        adopted = [spool for path in found if (spool := adopt_spool(path)) is not None]
        with self._changed:
            if not self._is_closed:
                self._adopted += adopted
                adopted = []
            self._is_adoption_wanted = False
            self._changed.notify_all()
        for spool in adopted:
            spool.close()

    def _next_batch(self) -> _Batch | None:
        for spool in self._spools():
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
            if self._state.outcome != "delivered":
                with guarded("project"):
                    self._on_delivered()
            self._remove(batch.spool, entries, delivered=True)
            return None
        if answer.outcome == "unfit":
            if len(entries) > 1:
                self._batch_size = len(entries) // 2
                return None
            self._keep_refused(batch)
            self._remove(batch.spool, entries, delivered=False)
            self._tell("rejected", f"one entry was refused and is kept aside: {answer.reason}")
            return None
        self._failure_count += 1
        self._tell("buffering" if answer.outcome == "away" else "rejected", answer.reason)
        return answer.retry_after_s or (0.0 if answer.outcome == "away" else _LAST_RETRY_S)

    def _remove(self, spool: Spool, entries: list[Entry], *, delivered: bool) -> None:
        spool.accept(entries)
        if delivered:
            self._tell("delivered", "", delivered_count=len(entries))
        with self._changed:
            if spool in self._adopted and not spool.pending_count:
                self._adopted.remove(spool)
                spool.close()
            self._changed.notify_all()

    def _keep_refused(self, batch: _Batch) -> None:
        if self._refused is None:
            self._refused = Spool.create(self._folder, suffix=REFUSED_SUFFIX)
        [(entry, payload)] = batch.entries
        self._refused.append(entry.kind, payload, key=entry.key)

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
                refused_count=self._refused.pending_count if self._refused is not None else 0,
            )
            self._changed.notify_all()


def _create_spool(folder: Path) -> Spool:
    try:
        return Spool.create(folder)
    except OSError as error:
        refuge = Path(tempfile.gettempdir()) / f"research-kit-spool-{getpass.getuser()}" / folder.name
        spool = Spool.create(refuge)
        spool.fault = (
            f"cannot write {str(folder)!r}: {error.strerror}; what ends is kept in {str(refuge)!r} until "
            "it is delivered. Correct its permissions, or set RESEARCH_KIT_DATA_DIR"
        )
        return spool


def adopt_spool(path: Path) -> Spool | None:
    """Take over a spool whose process is gone, with its open roots closed as errors; None while it lives."""
    heard_of_ns = path.stat().st_mtime_ns if path.exists() else time.time_ns()
    spool = Spool.adopt(path)
    if spool is not None:
        for key, payload in spool.open_roots.items():
            spool.append(Kind.SPAN, as_died(payload, heard_of_ns), key=key)
        if not spool.pending_count:
            spool.close()
            return None
    return spool


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
        for path in folder.glob(f"*{REFUSED_SUFFIX}"):
            spool = Spool.adopt(path)
            if spool is not None:  # else its kernel lives, and writes to it
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_in_child)

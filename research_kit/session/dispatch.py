"""What is sent next, and what becomes of it.

Owns the size of batches, and the search for an entry that makes the server fail; knows neither threads nor
requests. Invariants: an entry leaves its spool only when the server has taken it or it has been set aside on
disk, and it is set aside only when the server takes others, or at least an export without content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from research_kit.session.encoding import shortened
from research_kit.session.guard import guarded, take_telemetry_faults
from research_kit.session.sending import Answer
from research_kit.session.spool import Entry, Kind, Spool
from research_kit.session.spools import Spools
from research_kit.wire import plain_words

__all__ = ["Dispatch", "Outcome", "Sending", "Tell"]

_BATCH_SIZE = 1024
# The server refuses bodies above 5 MB; compressed they are far smaller, but it unpacks them.
_BATCH_BYTES = 4_000_000
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
# So many entries set aside in a row mean that the server takes nothing at all.
_MAX_ASIDE_IN_A_ROW = 5
# So many failures in a row are a fault of the server, which passes; then it is asked whether it works.
_PATIENCE = 3
# How often an entry is tried alone before it is set aside: while others are taken, and when it is the last.
_TRIES_BESIDE_OTHERS = 3
_TRIES_OF_THE_LAST = 5
# When so many fail alone and nothing else is taken, it is not for their content.
_MAX_SUSPECTS = 3

Outcome = Literal["delivered", "buffering", "rejected"]
Tell = Callable[[Outcome, str, int], None]


class Sending(Protocol):
    """How entries are sent; `sending.Sender` is the one that does."""

    def send(self, batch: Sequence[tuple[Entry, bytes]]) -> Answer:
        """Send entries of one kind in one request."""

    def takes_nothing_much(self) -> bool:
        """Whether the server takes an export without content."""


class _Batch(NamedTuple):
    spool: Spool
    entries: list[tuple[Entry, bytes]]


class Dispatch:
    """Sends one batch after the other.

    Args:
        spools: Where the entries are.
        sender: Sends them.
        tell: Is told the outcome, its reason, and how many entries were delivered.
        on_taken: Called when the server has taken entries, before they leave their spool.
    """

    def __init__(self, spools: Spools, sender: Sending, tell: Tell, on_taken: Callable[[], None]) -> None:
        self._spools, self._sender = spools, sender
        self._tell, self._on_taken = tell, on_taken
        self.failure_count = 0
        # The server asked to be left alone until then.
        self.not_before_s = 0.0
        self.batch_size = _BATCH_SIZE
        self._taken_count = 0
        self._failures_in_a_row = 0
        self._aside_in_a_row = 0
        # Entries on which the server failed alone, and how much it had taken when that began.
        self._suspects: dict[Entry, int] = {}

    def step(self) -> float | None:
        """Send what is next; return None to go on, else how long to wait (0: what the back-off says)."""
        batch = self._next_batch()
        return None if batch is None else self._settle(batch, self._send(batch))

    def _send(self, batch: _Batch) -> Answer:
        answer = None
        with guarded("delivery"):
            answer = self._sender.send(batch.entries)
        if answer is None:  # a fault of ours is one of this batch: it must not hold up the others
            fault = take_telemetry_faults().get("delivery", "")
            return Answer(outcome="failed", reason=f"a fault inside research-kit: {plain_words(fault)}")
        return answer

    def _next_batch(self) -> _Batch | None:
        if self._fails_on_everything():
            # Many in a row may be of one kind; the youngest is the most likely to be another.
            for spool in reversed(self._spools.held()):
                if (newest := spool.take_newest()) is not None:
                    return _Batch(spool, [newest])
        for spool in self._spools.held():
            entries = spool.take(max_count=self.batch_size, max_bytes=_BATCH_BYTES)
            if entries:
                # A score goes alone.
                return _Batch(spool, entries[:1] if entries[0][0].kind is Kind.SCORE else entries)
        for spool in self._spools.held():
            suspect = spool.take_suspect()
            if suspect is not None:
                return _Batch(spool, [suspect])
        return None

    def _settle(self, batch: _Batch, answer: Answer) -> float | None:
        match answer.outcome:
            case "taken":
                self._note_taken(batch)
                return None
            case "unfit" if len(batch.entries) > 1:
                self.batch_size = len(batch.entries) // 2
                return None
            case "unfit" if answer.is_too_large and _shorten(batch):
                return None
            case "unfit" if self._aside_in_a_row < _MAX_ASIDE_IN_A_ROW:
                self._set_aside(batch, "one entry was refused", answer.reason)
                return None
            case "failed":
                return self._search(batch, answer)
        return self._hold_back(answer)

    def _note_taken(self, batch: _Batch) -> None:
        self.batch_size = min(self.batch_size * 2, _BATCH_SIZE)
        self._taken_count += 1
        self._failures_in_a_row = self._aside_in_a_row = 0
        self._on_taken()
        self._remove(batch)
        self._tell("delivered", "", len(batch.entries))

    def _search(self, batch: _Batch, answer: Answer) -> float | None:
        """Find the entry on which the server fails, unless it fails on everything."""
        self._failures_in_a_row += 1
        [entry, _], is_alone = batch.entries[0], len(batch.entries) == 1
        if entry not in self._suspects and self._failures_in_a_row < _PATIENCE:
            return self._hold_back(answer)
        if not self._has_taken_others(entry) and not self._sender.takes_nothing_much():
            return self._hold_back(answer)
        if is_alone:
            return self._suspect(batch, answer)
        self.batch_size = len(batch.entries) // 2
        return None

    def _suspect(self, batch: _Batch, answer: Answer) -> float | None:
        [(entry, _)] = batch.entries
        self._suspects.setdefault(entry, self._taken_count)
        entry.failed_count += 1
        self.failure_count += 1
        has_others = self._has_taken_others(entry)
        tries = _TRIES_BESIDE_OTHERS if has_others else _TRIES_OF_THE_LAST
        is_last = not any(spool.has_unsuspected for spool in self._spools.held())
        is_proven = has_others or (is_last and not answer.may_pass and not self._fails_on_everything())
        if is_proven and entry.failed_count >= tries:
            self._set_aside(batch, "one entry made the server fail", answer.reason)
            return None
        self._tell("buffering", f"the server fails on one entry alone: {answer.reason}", 0)
        if not is_last:
            return 0.0 if self._fails_on_everything() else None
        # Each is tried once before the pause, however many they are.
        has_next = any(suspect.failed_count < entry.failed_count for suspect in self._suspects)
        return None if has_next else min(FIRST_RETRY_S * 2.0**entry.failed_count, LAST_RETRY_S)

    def _has_taken_others(self, entry: Entry) -> bool:
        return self._taken_count > self._suspects.get(entry, self._taken_count)

    def _fails_on_everything(self) -> bool:
        return sum(not self._has_taken_others(entry) for entry in self._suspects) >= _MAX_SUSPECTS

    def _set_aside(self, batch: _Batch, what: str, reason: str) -> None:
        [(entry, payload)] = batch.entries
        self._aside_in_a_row += 1
        self._spools.refuse(entry, payload, reason)
        self._remove(batch)
        self._tell("rejected", f"{what} and is kept aside: {reason}", 0)

    def _hold_back(self, answer: Answer) -> float:
        is_away, reason = answer.outcome in ("away", "failed"), answer.reason
        if answer.retry_after_s:
            self.not_before_s = time.monotonic() + answer.retry_after_s
            until = datetime.now(UTC) + timedelta(seconds=answer.retry_after_s)
            reason = f"{reason} and asked to wait until {until:%H:%M:%S} UTC"
        self.failure_count += 1
        if not is_away:
            self._aside_in_a_row = 0  # the next one that is refused is looked at by itself
        self._tell("buffering" if is_away else "rejected", reason, 0)
        return answer.retry_after_s or (0.0 if is_away else LAST_RETRY_S)

    def _remove(self, batch: _Batch) -> None:
        entries = [entry for entry, _ in batch.entries]
        for entry in entries:
            self._suspects.pop(entry, None)
        batch.spool.accept(entries)
        self._spools.drop_empty(batch.spool)


def _shorten(batch: _Batch) -> bool:
    """Let a single span be sent with its long texts cut; its file keeps them until it is taken."""
    [(entry, payload)] = batch.entries
    shorter = shortened(payload) if entry.kind is Kind.SPAN else None
    if shorter is None or len(shorter) >= len(payload):
        return False
    entry.payload = shorter
    return True

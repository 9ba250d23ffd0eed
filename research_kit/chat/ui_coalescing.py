"""Events of a turn in groups, for a browser that cannot take them one by one.

Owns how long an event may wait for the next. Invariant: events leave in the order in which they came, none is
dropped, and none waits longer than `COALESCING_S`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from research_kit.chat.events import Event

__all__ = ["COALESCING_S", "coalesce_events"]

COALESCING_S = 0.025
"""Events that arrive within this time leave together: a browser message per token is 36 times slower."""


def coalesce_events(turn: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield the events of ``turn`` in groups: those that arrived within `COALESCING_S` of the first.

    A thread of its own iterates the turn, so that a group leaves in time also when no further event comes.
    """
    arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    threading.Thread(
        target=_collect_events, args=(turn, arrived), name="research-kit-chat-events", daemon=True
    ).start()
    is_over = False
    while not is_over:
        events, is_over = _take_group(arrived)
        if events:
            yield events


class _Group(NamedTuple):
    events: list[Event]
    is_over: bool


def _take_group(arrived: queue.SimpleQueue[Event | None]) -> _Group:
    events: list[Event] = []
    event = arrived.get()
    deadline_s = time.monotonic() + COALESCING_S
    while event is not None:
        events.append(event)
        rest_s = deadline_s - time.monotonic()
        if rest_s <= 0:
            return _Group(events, is_over=False)
        try:
            event = arrived.get(timeout=rest_s)
        except queue.Empty:
            return _Group(events, is_over=False)
    return _Group(events, is_over=True)


def _collect_events(turn: Iterable[Event], arrived: queue.SimpleQueue[Event | None]) -> None:
    try:
        for event in turn:
            arrived.put(event)
    finally:
        arrived.put(None)

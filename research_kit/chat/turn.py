"""One message being answered, as its listeners see it.

Owns the queue of events, the wish to stop, and which message the running code answers; what produces the
events is elsewhere. Invariant: the events end after exactly one closing event, and only one listener iterates
them.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from research_kit.chat.events import Event, MessageCancelled, MessageFailed, MessageFinished
from research_kit.errors import ResearchKitError

__all__ = ["ClosingEvent", "Turn", "current_turn"]

ClosingEvent = MessageFinished | MessageFailed | MessageCancelled
# An interrupt of the kernel is noticed between these waits.
_POLL_S = 0.25


class Turn:
    """The handle of a running message.

    Args:
        text: What the user wrote.
        message_number: Number of the message in its conversation, from 1.
        is_retry: Whether it asks anew what was asked before.
        cancel: Stops the work of the turn it is given; called at most once.
    """

    def __init__(
        self, text: str, *, message_number: int, cancel: Callable[[Turn], None], is_retry: bool = False
    ) -> None:
        self.text = text
        self.message_number = message_number
        self.is_retry = is_retry
        self.work: asyncio.Future[Any] | None = None
        self._cancel = cancel
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._is_cancelled = threading.Event()
        self._closed = threading.Event()
        self._closing_event: ClosingEvent | None = None

    def __iter__(self) -> Iterator[Event]:
        """Yield the events as they come, the closing one last."""
        while True:
            try:
                event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                if self._closed.is_set() and self._events.empty():
                    return
                continue
            yield event
            if isinstance(event, ClosingEvent):
                return

    @property
    def is_running(self) -> bool:
        """Whether the answer is still being made."""
        return not self._closed.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._is_cancelled.is_set()

    def cancel(self) -> None:
        """Stop the answer; what had arrived stays. Repeated calls change nothing."""
        if self.is_running and not self._is_cancelled.is_set():
            self._is_cancelled.set()
            self._cancel(self)

    def wait(self) -> ClosingEvent:
        """Wait until the message is answered, failed or stopped, and return how it ended.

        An interrupt of the kernel stops the answer and is raised.
        """
        try:
            while not self._closed.wait(_POLL_S):
                pass
        except KeyboardInterrupt:
            self.cancel()
            raise
        assert self._closing_event is not None
        return self._closing_event

    def result(self) -> MessageFinished:
        """Wait for the answer.

        Raises:
            ResearchKitError: When the message failed or was stopped.
        """
        event = self.wait()
        if isinstance(event, MessageFinished):
            return event
        cause = event.error if isinstance(event, MessageFailed) else "it was stopped"
        raise ResearchKitError(f"The message {self.text[:60]!r} was not answered: {cause}")

    def emit(self, event: Event) -> None:
        """Give ``event`` to the listener; after the closing event nothing more is taken."""
        if self._closed.is_set():
            return
        if isinstance(event, ClosingEvent):
            self._closing_event = event
            self._events.put(event)
            self._closed.set()
        else:
            self._events.put(event)


current_turn: contextvars.ContextVar[Turn | None] = contextvars.ContextVar(
    "research_kit_current_turn", default=None
)
"""The message that the running code answers: set by the task of the message, seen by whatever it calls."""

"""What every request of one server needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from research_kit.store.database import Database
from research_kit.store.state import Credentials
from research_kit.store.tickets import Tickets

__all__ = ["Activity", "Store"]


@dataclass(slots=True)
class Activity:
    """When the last request came; the server ends after a long silence when it was asked to."""

    last_request_time: float = field(default_factory=time.monotonic)

    def note(self) -> None:
        """Note that a request came just now."""
        self.last_request_time = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request."""
        return time.monotonic() - self.last_request_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What every request needs.

    Attributes:
        database: What is stored.
        credentials: Key pair and project.
        version: The version of research-kit.
        port: The port on the loopback interface, which proofs hold for.
        activity: When the last request came.
        tickets: The links that open a page now.
    """

    database: Database
    credentials: Credentials
    version: str
    port: int
    activity: Activity = field(default_factory=Activity)
    tickets: Tickets = field(default_factory=Tickets)

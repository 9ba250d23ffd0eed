"""What every request of one server needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from research_kit.store.database import Database
from research_kit.store.state import Credentials

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
    """What every request needs."""

    database: Database
    credentials: Credentials
    version: str
    activity: Activity = field(default_factory=Activity)

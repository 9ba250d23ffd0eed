"""One-time tokens of the links that open the store's pages.

Owns which tokens open something now. Invariant: a token opens once, within minutes, and on the server that
made it; none survives a restart, used or not.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

__all__ = ["TICKET_LIFETIME_S", "Ticket", "Tickets"]

TICKET_LIFETIME_S = 300.0
_MAX_OPEN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a token may do.

    Attributes:
        expires_s: Until when, on the monotonic clock.
        fits_any_host: Whether it also opens under 127.0.0.1 and localhost.
    """

    expires_s: float
    fits_any_host: bool


class Tickets:
    """The tokens of one server; used on its event loop only."""

    def __init__(self, *, lifetime_s: float = TICKET_LIFETIME_S) -> None:
        self._lifetime_s = lifetime_s
        self._open: dict[str, Ticket] = {}

    def issue(self, *, fits_any_host: bool) -> str:
        """Make a token; the oldest one goes when there are too many."""
        token = secrets.token_urlsafe(32)
        if len(self._open) >= _MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[token] = Ticket(expires_s=time.monotonic() + self._lifetime_s, fits_any_host=fits_any_host)
        return token

    def find(self, token: str) -> Ticket | None:
        """Return what a token may do, without using it; None when it opens nothing."""
        ticket = self._open.get(token)
        return ticket if ticket is not None and ticket.expires_s > time.monotonic() else None

    def use(self, token: str) -> None:
        """Use a token up."""
        self._open.pop(token, None)

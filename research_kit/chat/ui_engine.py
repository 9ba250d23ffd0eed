"""What a panel needs of a conversation.

Owns the seam between panel and engine; imports neither at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from research_kit.chat.events import Event

if TYPE_CHECKING:
    from research_kit.chat.approving import Approvals
    from research_kit.chat.history import Totals
    from research_kit.chat.past import PastMessage, SessionSummary
    from research_kit.chat.spending import Budget
    from research_kit.chat.tool_trust import ToolTrust

__all__ = ["Engine", "Turn"]


class Turn(Protocol):
    """One message being answered."""

    @property
    def message_number(self) -> int:
        """Number of the message in its conversation."""

    def __iter__(self) -> Iterator[Event]:
        """Yield the events of the turn, waiting for each."""

    def cancel(self) -> None:
        """Stop the answer; the events then end with `MessageCancelled`."""


class Engine(Protocol):
    """What a panel needs of a conversation."""

    @property
    def session_id(self) -> str | None:
        """Session that the traces belong to."""

    @property
    def user_id(self) -> str | None:
        """User that the traces belong to."""

    @property
    def backend_state(self) -> str:
        """Where traces go: ``disabled``, ``local``, ``connected``, …."""

    @property
    def backend_reason(self) -> str:
        """Why the backend is in that state; empty when all is well."""

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, from any thread, when the backend's state has changed; return what ends this."""

    @property
    def budget(self) -> Budget:
        """What the session has used and may use."""

    @property
    def approvals(self) -> Approvals:
        """Where questions about tools wait for the user."""

    @property
    def trust(self) -> ToolTrust:
        """The question whether the tool servers of the folder may be used."""

    @property
    def lm_name(self) -> str | None:
        """Language model that answers."""

    @property
    def totals(self) -> Totals:
        """The sums so far."""

    def send(self, text: str) -> Turn:
        """Begin to answer ``text`` and return at once.

        Raises:
            ResearchKitError: When the message cannot be taken; the message says why.
        """

    def resend(self, message_number: int, text: str) -> Turn:
        """Ask again from a message on; raises as `send` does."""

    def decide(self, call_id: str, decision: str) -> None:
        """Answer a question about a tool."""

    def list_sessions(self) -> list[SessionSummary]:
        """Return the sessions that one can go on with; raises `ResearchKitError`."""

    def open_session(self, session_id: str | None) -> list[PastMessage]:
        """Go on with a session, or a new one, and return its messages; raises `ResearchKitError`."""

    def give_feedback(self, trace_id: str, value: int | None, comment: str) -> None:
        """Score an answer, or take the score back; raises `ResearchKitError`."""

    def page_address(self, trace_id: str | None = None) -> str | None:
        """Return the address of the page of a trace, else of the session, without any secret."""

    def opening_link(self, trace_id: str | None = None) -> str | None:
        """Return the link that opens that page now; never to be kept."""

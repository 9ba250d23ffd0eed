"""What `research_kit.status()` shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Literal, TypeAlias

from research_kit._addresses import without_passwords
from research_kit.plain_text import plain_block, plain_text

__all__ = ["SessionState", "SessionStatus"]

SessionState: TypeAlias = Literal["disabled", "local", "connected", "buffering", "rejected"]

_WORDS: dict[SessionState, str] = {
    "disabled": "nothing is traced",
    "local": "traces go to the embedded store on this machine",
    "connected": "traces go to Langfuse",
    "buffering": "the server does not take traces now; they wait on disk and are sent again",
    "rejected": "the server refused the traces; they wait on disk until this is corrected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """How the session of this kernel stands.

    Attributes:
        state: One of ``disabled``, ``local``, ``connected``, ``buffering``, ``rejected``.
        session_id: The Langfuse session; None when nothing is bound.
        user_id: The user of new traces.
        base_url: The server; None until it is known.
        session_url: The session's page; None until the project is known.
        reason: Why the state is what it is; empty when all is well.
        pending_count: Ended observations that the server has not accepted yet.
        delivered_count: Observations that the server has accepted.
        lost_count: Observations given up because the spool was full.
        refused_count: Observations that were set aside, because a server does not take them; kept on disk.
        since: Since when the state is what it is.
        notice: What Langfuse clients of user code send past the session or its mask; empty when nothing.
        faults: First telemetry error of each place, by place.
    """

    state: SessionState
    session_id: str | None = None
    user_id: str | None = None
    base_url: str | None = None
    session_url: str | None = None
    reason: str = ""
    pending_count: int = 0
    delivered_count: int = 0
    lost_count: int = 0
    refused_count: int = 0
    since: datetime | None = None
    notice: str = ""
    faults: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Take the secrets out of what quotes servers and errors."""
        if not self.reason and not self.faults:
            return
        from research_kit.masking import masked_text

        object.__setattr__(self, "reason", masked_text(self.reason))
        object.__setattr__(self, "faults", tuple((place, masked_text(text)) for place, text in self.faults))

    def __str__(self) -> str:
        """Say it in a few lines of text."""
        return plain_block("\n".join(f"{name}: {plain_text(text)}" for name, text in self._rows()))

    def __repr__(self) -> str:
        """Show the same text, so that a cell's last line reads well."""
        return str(self)

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        rows = "".join(
            f"<tr><th {left}>{escape(plain_text(name))}</th><td {left}>{_linked(plain_text(text))}</td></tr>"
            for name, text in self._rows()
        )
        return f"<table>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("state", f"{self.state} ({_WORDS[self.state]})")]
        named = [
            ("session", self.session_id),
            ("user", self.user_id),
            ("page", without_passwords(self.session_url or self.base_url or "")),
            ("reason", self.reason),
            ("notice", self.notice),
            ("since", f"{self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else None),
        ]
        rows += [(name, text) for name, text in named if text]
        if self.state != "disabled":
            rows.append(("observations", f"{self.delivered_count} delivered, {self.pending_count} waiting"))
        if self.lost_count:
            rows.append(("lost", f"{self.lost_count} observations: the spool was full"))
        if self.refused_count:
            count = f"{self.refused_count} observation{'' if self.refused_count == 1 else 's'}"
            shown = "research-kit status --aside says why, research-kit deliver --refused tries again"
            rows.append(("set aside", f"{count}; {shown}"))
        rows += [(f"fault in {place}", text) for place, text in self.faults]
        return rows


def _linked(text: str) -> str:
    shown = escape(text)
    if text.startswith(("http://", "https://")):
        return f'<a href="{shown}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    return shown

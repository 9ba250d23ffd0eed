"""What callers learn about a store: where it listens, and how it is.

Owns two values and nothing else. Invariant: they hold everything that is needed to use the store, so they
can be passed to other processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from research_kit.store.links import page_address, session_page_path, trace_page_path

__all__ = ["StoreAddress", "StoreStatus", "moved_notice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where the running store listens, and the keys that it accepts.

    Attributes:
        base_url: ``http://127.0.0.1:<port>``, for browsers and for clients of other makers.
        public_key: Langfuse public key of this installation.
        secret_key: Langfuse secret key of this installation.
        project_id: The one project of the store.
        pid: Process id of the server.
        socket_path: The Unix socket that the clients of this package use; None where there are none.
        former_port: The port that it had before and that another program has now; None when there is none.
    """

    base_url: str
    public_key: str
    secret_key: str
    project_id: str
    pid: int
    socket_path: Path | None = None
    former_port: int | None = None

    @property
    def notice(self) -> str:
        """What the user should know of the address; empty when there is nothing."""
        return moved_notice(self.former_port)

    def session_url(self, session_id: str) -> str:
        """Return the address of the replay of one session."""
        return page_address(self, session_page_path(self.project_id, session_id))

    def trace_url(self, trace_id: str) -> str:
        """Return the address of the tree of one trace."""
        return page_address(self, trace_page_path(self.project_id, trace_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """What is known about the store of a data directory without starting it.

    Attributes:
        is_running: Whether a server answers.
        base_url: Its address; None when it does not run.
        public_key: Langfuse public key; None before the first start.
        secret_key: Langfuse secret key; None before the first start.
        project_id: The one project; None before the first start.
        pid: Process id of the server; None when it does not run.
        path: The database file.
        version: The version of research-kit that the server runs; None when it does not run.
        observation_count: Observations in the database; None when the server does not run.
        notice: What the user should know of the address; empty when there is nothing.
    """

    is_running: bool
    base_url: str | None
    public_key: str | None
    secret_key: str | None
    project_id: str | None
    pid: int | None
    path: Path
    version: str | None
    observation_count: int | None
    notice: str = ""


def moved_notice(former_port: int | None) -> str:
    """Say that the store has another port than before."""
    if former_port is None:
        return ""
    return (
        f"another program listens on port {former_port}, where the store was before; "
        "links of before no longer work"
    )

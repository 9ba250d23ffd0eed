"""What callers learn about a store: where it listens, and how it is.

Owns two values and nothing else. Invariant: they hold everything that is needed to use the store, so they
can be passed to other processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from research_kit.store.links import page_url

__all__ = ["StoreAddress", "StoreStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where the running store listens, and the keys that it accepts.

    Attributes:
        base_url: ``http://127.0.0.1:<port>``.
        public_key: Langfuse public key of this installation.
        secret_key: Langfuse secret key of this installation.
        project_id: The one project of the store.
        pid: Process id of the server.
    """

    base_url: str
    public_key: str
    secret_key: str
    project_id: str
    pid: int

    def session_url(self, session_id: str) -> str:
        """Return a link that opens the replay of one session in a browser."""
        return page_url(self, f"/project/{self.project_id}/sessions/{quote(session_id, safe='')}")

    def trace_url(self, trace_id: str) -> str:
        """Return a link that opens the tree of one trace in a browser."""
        return page_url(self, f"/project/{self.project_id}/traces/{trace_id}")


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

"""What a read means when nothing is said: the server and the session of this process.

Owns the only link of the read path to the session room; reads nothing itself. Invariant: the session room is
imported on first need, so reading another server with a reader of its own starts no store and no telemetry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from research_kit._notices import warn_user
from research_kit.config import load_settings
from research_kit.errors import ConfigError
from research_kit.traces.reader import TraceReader

__all__ = ["bound_session", "is_bound", "open_reader"]

_TIMEOUT_S = 30.0


@contextmanager
def open_reader(reader: TraceReader | None = None) -> Iterator[TraceReader]:
    """Yield ``reader``, or one for the server of this process, which is closed afterwards.

    What has ended in this process is sent before, so that a cell can read what the cell above it did.

    Raises:
        StoreError: When the embedded store cannot be started.
        ConfigError: When the settings cannot be used.
    """
    if reader is not None:
        yield reader
        return
    from research_kit.session import flush, resolve_backend

    if not flush():
        warn_user(
            "Some observations of this kernel are not sent yet and therefore missing. Read again later."
        )
    backend = resolve_backend()
    keys = (backend.public_key, backend.secret_key)
    read_max_mb = load_settings().read_max_mb
    if backend.state == "local":
        with (
            backend.open_client(timeout_s=_TIMEOUT_S) as client,
            TraceReader(backend.base_url, *keys, client=client, max_read_mb=read_max_mb) as opened,
        ):
            yield opened
        return
    with TraceReader(backend.base_url, *keys, max_read_mb=read_max_mb) as opened:
        yield opened


def bound_session() -> str:
    """Return the session of this kernel.

    Raises:
        ConfigError: When none is bound.
    """
    from research_kit.session import current_session_id

    session_id = current_session_id()
    if session_id is None:
        raise ConfigError(
            "No session_id is given and none is bound to this kernel. Call rk.bind(), give a session_id, "
            "or read all sessions with ALL_SESSIONS."
        )
    return session_id


def is_bound(session_id: str) -> bool:
    """Return whether it is the session of this kernel, which may have no observations yet."""
    from research_kit.session import current_session_id

    return session_id == current_session_id()

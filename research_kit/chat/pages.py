"""The addresses of a session's and a trace's page.

Owns the difference between an address that may be kept and a link that opens at once. Invariant: a link is
made at the click, and is in no trait, notebook or export.
"""

from __future__ import annotations

from research_kit import session

__all__ = ["opening_link", "page_address"]


def opening_link(*, trace_id: str | None = None) -> str | None:
    """Return the link that opens the page of a trace, else of the session, now; never to be kept.

    None while the server's project is not known.

    Raises:
        ResearchKitError: When the embedded store, which may have ended meanwhile, cannot be started.
    """
    if page_address(trace_id=trace_id) is None:
        return None
    return (
        session.kernel_session()
        .refresh_backend()
        .opening_link(session_id=session.current_session_id(), trace_id=trace_id)
    )


def page_address(*, trace_id: str | None = None) -> str | None:
    """Return the address of the page of a trace, else of the session.

    A browser that was let in to the pages of the embedded store opens it; else ``research-kit store open``
    makes a link that does.
    """
    backend = session.kernel_session().backend
    session_id = session.current_session_id()
    if backend is None:
        return None
    if trace_id is not None:
        return backend.trace_url(trace_id)
    return backend.session_url(session_id) if session_id is not None else None

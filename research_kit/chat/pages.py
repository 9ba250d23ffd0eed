"""The addresses of a session's and a trace's page.

Owns the difference between an address that may be kept and a link that opens at once. Invariant: an address
that may be kept, in a trait, a notebook or an export, has no secret in it.
"""

from __future__ import annotations

from research_kit import session

__all__ = ["opening_link", "page_address"]


def opening_link(*, trace_id: str | None = None) -> str | None:
    """Return the link that opens the page of a trace, else of the session, now; never to be kept.

    None while the server's project is not known.
    """
    backend = session.kernel_session().backend
    session_id = session.current_session_id()
    if backend is None:
        return None
    if trace_id is not None:
        return backend.trace_url(trace_id)
    return backend.session_url(session_id) if session_id is not None else None


def page_address(*, trace_id: str | None = None) -> str | None:
    """Return the address of the page of a trace, else of the session, without the proof that opens it.

    A browser that has opened a page of the embedded store before opens it; else ``research-kit store open``
    makes a link that does.
    """
    link = opening_link(trace_id=trace_id)
    return link.partition("?token=")[0] if link is not None else None

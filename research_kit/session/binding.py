"""Binding this process to a session, changing it, and ending it.

Owns the functions that users call; the session itself is `kernel`'s. Invariant: binding imports nothing heavy
and asks no server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from research_kit._notices import warn_user
from research_kit.config import load_settings
from research_kit.session.backend import key_refusal
from research_kit.session.environment_file import read_environment_file
from research_kit.session.guard import guarded
from research_kit.session.identity import (
    Identity,
    as_metadata,
    as_tags,
    default_user_id,
    new_session_id,
    validate_session_id,
)
from research_kit.session.kernel import kernel_session
from research_kit.session.status import SessionStatus

if TYPE_CHECKING:
    from research_kit.masking import Mask

__all__ = ["bind", "new_session", "resume", "unbind"]

_session = kernel_session()


def bind(
    session_id: str | None = None,
    *,
    user_id: str | None = None,
    tags: Iterable[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    mask: Mask | None = None,
    environment: str | None = None,
    release: str | None = None,
) -> SessionStatus:
    """Bind this kernel to a Langfuse session; without arguments, keep the session that is bound already.

    Args:
        session_id: ASCII, at most 200 characters; by default ``RESEARCH_KIT_SESSION_ID``, through which a
            child process joins its parent's session, else ``jupyter-`` and a random UUID.
        user_id: By default ``LANGFUSE_USER_ID``, ``JUPYTERHUB_USER`` or the login name.
        tags: Tags of every trace of the session.
        metadata: Metadata of every trace of the session.
        mask: Regular expressions, or a function from text to text: what it matches or changes is never
            recorded, besides the secrets that are always taken out.
        environment: Langfuse environment of every trace; by default ``LANGFUSE_TRACING_ENVIRONMENT``.
        release: Release of your own code; by default ``LANGFUSE_RELEASE``.

    Returns:
        The status after binding.

    Raises:
        ConfigError: When a value is one that Langfuse would drop, or a setting cannot be used.
    """
    bound = _session.identity
    if bound is None:
        _prepare_environment()
    settings = load_settings()
    if bound is None:
        bound = Identity(
            session_id=session_id or settings.session_id or new_session_id(),
            user_id=default_user_id(settings),
            environment=settings.environment,
            release=settings.release,
        )
    if mask is not None:
        _session.set_mask(mask)
    _session.set_identity(
        replace(
            bound,
            session_id=bound.session_id if session_id is None else session_id,
            user_id=bound.user_id if user_id is None else user_id,
            tags=bound.tags if tags is None else as_tags(tags),
            metadata=bound.metadata if metadata is None else as_metadata(metadata),
            environment=bound.environment if environment is None else environment,
            release=bound.release if release is None else release,
        )
    )
    with guarded("earlier Langfuse client"):
        _session.find_earlier_client()
    return _session.status()


def _prepare_environment() -> None:
    """Read the folder's file, and warn of what of it is ignored, and of keys that must not be sent."""
    # DSPy would otherwise fetch a price list from the network with its first call, and warn when offline.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    file, settings = read_environment_file(), load_settings()
    refusal = key_refusal(settings) if settings.is_tracing_enabled else ""
    for problem in filter(None, (*file.problems, refusal)):
        warn_user(problem)


def new_session(*, user_id: str | None = None) -> SessionStatus:
    """Begin a new session in this kernel; traces that are open keep theirs."""
    return bind(new_session_id(), user_id=user_id)


def resume(session_id: str) -> SessionStatus:
    """Go on with an earlier session in this kernel.

    Raises:
        ConfigError: When Langfuse does not accept the session id.
    """
    _session.resumed_session_id = validate_session_id(session_id)
    return bind(session_id)


def unbind() -> None:
    """Stop tracing what starts from now on; what has ended is still delivered."""
    _session.set_identity(None)

"""The session functions under the names of the chat application that this package grew from."""

from __future__ import annotations

from research_kit.session import binding, kernel
from research_kit.session.observing import trace_span

__all__ = ["LangfuseManager", "clear_session", "langfuse_manager", "set_session", "set_user"]


def set_session(session_id: str, user_id: str | None = None) -> None:
    """Bind this kernel to ``session_id``, and to ``user_id`` when given; open traces keep theirs.

    Raises:
        ConfigError: When Langfuse does not accept one of them.
    """
    binding.bind(session_id, user_id=user_id)


def set_user(user_id: str) -> None:
    """Give new traces to ``user_id``; without a session, a new one is bound.

    Raises:
        ConfigError: When Langfuse does not accept the user id.
    """
    binding.bind(user_id=user_id)


def clear_session() -> None:
    """Stop tracing what starts from now on; what has ended is still delivered."""
    binding.unbind()


class LangfuseManager:
    """Session functions of the chat application that this package grew from."""

    @property
    def current_session_id(self) -> str | None:
        """The session that new traces belong to."""
        return kernel.current_session_id()

    @property
    def current_user_id(self) -> str | None:
        """The user that new traces belong to."""
        return kernel.current_user_id()

    set_session = staticmethod(set_session)
    set_user = staticmethod(set_user)
    clear_session = staticmethod(clear_session)
    trace_span = staticmethod(trace_span)


langfuse_manager = LangfuseManager()

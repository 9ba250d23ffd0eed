"""One kernel, one Langfuse session: identity, stamping, delivery, status."""

from typing import TYPE_CHECKING, Any

from research_kit.session.backend import Backend, resolve_backend
from research_kit.session.binding import bind, new_session, resume, unbind
from research_kit.session.guard import guarded
from research_kit.session.identity import Identity
from research_kit.session.kernel import (
    KernelSession,
    activate,
    current_session_id,
    current_user_id,
    flush,
    get_tracer,
    kernel_session,
    mark_open,
    status,
)
from research_kit.session.manager import (
    LangfuseManager,
    clear_session,
    langfuse_manager,
    set_session,
    set_user,
)
from research_kit.session.observing import trace_span
from research_kit.session.status import SessionStatus
from research_kit.session.waiting import Waiting, count_for_other_keys, count_waiting, deliver_waiting

if TYPE_CHECKING:
    from research_kit.session.scores import score

__all__ = [
    "Backend",
    "Identity",
    "KernelSession",
    "LangfuseManager",
    "SessionStatus",
    "Waiting",
    "activate",
    "bind",
    "clear_session",
    "count_for_other_keys",
    "count_waiting",
    "current_session_id",
    "current_user_id",
    "deliver_waiting",
    "flush",
    "get_tracer",
    "guarded",
    "kernel_session",
    "langfuse_manager",
    "mark_open",
    "new_session",
    "resolve_backend",
    "resume",
    "score",
    "set_session",
    "set_user",
    "status",
    "trace_span",
    "unbind",
]


def __getattr__(name: str) -> Any:
    if name != "score":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # It brings httpx, which a kernel that scores nothing does not need.
    from research_kit.session.scores import score

    return score

"""Opening a chat in a notebook: ``rk.chat()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from research_kit import session
from research_kit.chat.engine import Conversation
from research_kit.chat.panel import ChatPanel

if TYPE_CHECKING:
    import dspy

__all__ = ["chat"]


def chat(*, lm: Any = None, tools: Sequence[Any] = (), assistant: dspy.Module | None = None) -> ChatPanel:
    """Open a chat panel; binds a session when none is bound, and goes on with one that was resumed.

    Args:
        lm: A ``dspy.BaseLM`` or a model name; by default what `research_kit.resolve_lm` chooses.
        tools: Python functions, ``dspy.Tool`` objects or tool servers (`research_kit.papers`) that the
            assistant may use besides the notebook's own tools and the servers of ``mcp.json``.
        assistant: Any DSPy module that takes ``question`` and ``history`` and returns ``answer``.
    """
    session.bind()
    conversation = Conversation(lm=lm, tools=tools, assistant=assistant)
    conversation.prepare()
    panel = ChatPanel(conversation)
    if session.kernel_session().resumed_session_id == session.current_session_id():
        panel.restore()
    return panel

"""Opening a chat in a notebook: ``rk.chat()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from research_kit import session
from research_kit.chat.engine import Conversation
from research_kit.chat.panel import ChatPanel

if TYPE_CHECKING:
    import dspy

__all__ = ["chat"]


def chat(
    *, lm: Any = None, tools: Sequence[Callable[..., Any]] = (), assistant: dspy.Module | None = None
) -> ChatPanel:
    """Open a chat panel on a new conversation; binds a session when none is bound.

    Args:
        lm: A ``dspy.BaseLM`` or a model name; by default what `research_kit.resolve_lm` chooses.
        tools: Python functions that the assistant may call besides the notebook's own tools.
        assistant: Any DSPy module that takes ``question`` and ``history`` and returns ``answer``.
    """
    session.bind()
    conversation = Conversation(lm=lm, tools=tools, assistant=assistant)
    conversation.prepare()
    return ChatPanel(conversation)

"""Which message the running code answers.

Owns one context variable, set by the task of a message and seen by whatever it calls.
"""

from __future__ import annotations

import contextvars

from research_kit.chat.turn import Turn

__all__ = ["current_turn"]

current_turn: contextvars.ContextVar[Turn | None] = contextvars.ContextVar(
    "research_kit_current_turn", default=None
)

"""Asking the user whether a tool may run.

Owns the open questions and what was allowed for a session; decides nothing by itself. Invariant: a tool runs
only after somebody said so for this call, or for its name in this session; whatever a tool answers changes
nothing here.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, Literal

from research_kit import session
from research_kit.chat.events import ApprovalNeeded
from research_kit.chat.turn import Turn
from research_kit.errors import ConfigError

__all__ = ["Approvals", "Decision"]

Decision = Literal["once", "session", "deny"]
_DECISIONS = ("once", "session", "deny")

_asking_turn: contextvars.ContextVar[Turn | None] = contextvars.ContextVar(
    "research_kit_asking_turn", default=None
)


class _Question:
    def __init__(self, turn: Turn, name: str) -> None:
        self.turn = turn
        self.name = name
        self.is_decided = threading.Event()
        self.is_allowed = False


class Approvals:
    """The approvals of one conversation.

    Args:
        approve: Decides when nobody is shown the questions; without it the answer is then no.
    """

    def __init__(self, approve: Callable[[str, dict[str, Any]], bool] | None = None) -> None:
        self._approve = approve
        self._lock = threading.Lock()
        self._allowed: set[tuple[str | None, str]] = set()
        self._questions: dict[str, _Question] = {}
        self.is_shown = False

    def enter(self, turn: Turn) -> None:
        """Ask on ``turn`` whatever is asked in the context of the caller."""
        _asking_turn.set(turn)

    def ask(self, name: str, arguments: dict[str, Any]) -> bool:
        """Wait until it is decided whether the tool ``name`` may run; called in a thread of its own."""
        turn = _asking_turn.get()
        with self._lock:
            if (session.current_session_id(), name) in self._allowed:
                return True
        if turn is None or not self.is_shown:
            return self._approve is not None and self._approve(name, arguments)
        return self._ask_on(turn, name, arguments)

    def decide(self, call_id: str, decision: str) -> None:
        """Answer an open question; one that is not open any more is left alone.

        Raises:
            ConfigError: When ``decision`` is none of ``once``, ``session``, ``deny``.
        """
        if decision not in _DECISIONS:
            raise ConfigError(f"The decision {decision!r} is not known. Give one of {', '.join(_DECISIONS)}.")
        with self._lock:
            question = self._questions.pop(call_id, None)
            if question is None:
                return
            question.is_allowed = decision != "deny"
            if decision == "session":
                self._allowed.add((session.current_session_id(), question.name))
        question.is_decided.set()

    def release(self, turn: Turn) -> None:
        """Deny what is still asked on a turn that has ended."""
        with self._lock:
            open_ids = [call_id for call_id, question in self._questions.items() if question.turn is turn]
        for call_id in open_ids:
            self.decide(call_id, "deny")

    def _ask_on(self, turn: Turn, name: str, arguments: dict[str, Any]) -> bool:
        from dspy.utils.callback import ACTIVE_CALL_ID

        call_id = str(ACTIVE_CALL_ID.get() or id(arguments))
        question = _Question(turn, name)
        with self._lock:
            self._questions[call_id] = question
        turn.emit(ApprovalNeeded(call_id=call_id, name=name, arguments=arguments))
        if not turn.is_running:
            self.release(turn)
        question.is_decided.wait()
        return question.is_allowed

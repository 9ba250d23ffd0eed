"""Asking the user whether a tool may run.

Owns the open questions and what was allowed for a session; decides nothing by itself. Invariant: a tool runs
only after somebody said so for this call, or in this session for this tool with exactly this description;
whatever a tool answers changes nothing here.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from research_kit import session
from research_kit.chat.events import ApprovalNeeded
from research_kit.chat.turn import Turn, current_turn
from research_kit.errors import ConfigError

if TYPE_CHECKING:
    from research_kit.agent import ToolRequest

__all__ = ["Approvals"]

_DECISIONS = ("once", "session", "deny")


class _Question:
    def __init__(self, turn: Turn, request: ToolRequest) -> None:
        self.turn = turn
        self.request = request
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
        # By session, server and tool: the fingerprints that were allowed, for two servers may share a name.
        self._allowed: defaultdict[tuple[str | None, str, str], set[str]] = defaultdict(set)
        self._questions: dict[str, _Question] = {}
        self.is_shown = False

    def ask(self, request: ToolRequest) -> bool:
        """Wait until it is decided whether a tool may run; called in a thread of its own."""
        turn = current_turn.get()
        with self._lock:
            allowed = frozenset(self._allowed[_key(request)])
        if request.fingerprint in allowed:
            return True
        if turn is None or not self.is_shown:
            return self._approve is not None and self._approve(request.name, request.arguments)
        return self._ask_on(turn, request, is_changed=bool(allowed))

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
                self._allowed[_key(question.request)].add(question.request.fingerprint)
        question.is_decided.set()

    def release(self, turn: Turn) -> None:
        """Deny what is still asked on a turn that has ended."""
        with self._lock:
            open_ids = [call_id for call_id, question in self._questions.items() if question.turn is turn]
        for call_id in open_ids:
            self.decide(call_id, "deny")

    def _ask_on(self, turn: Turn, request: ToolRequest, *, is_changed: bool) -> bool:
        from dspy.utils.callback import ACTIVE_CALL_ID

        call_id = str(ACTIVE_CALL_ID.get() or id(request))
        question = _Question(turn, request)
        with self._lock:
            self._questions[call_id] = question
        turn.emit(
            ApprovalNeeded(
                call_id=call_id,
                name=request.name,
                server=request.server,
                arguments=request.arguments,
                is_changed=is_changed,
                description=request.description,
                is_destructive=request.is_destructive,
            )
        )
        if not turn.is_running:
            self.release(turn)
        question.is_decided.wait()
        return question.is_allowed


def _key(request: ToolRequest) -> tuple[str | None, str, str]:
    return session.current_session_id(), request.server, request.name

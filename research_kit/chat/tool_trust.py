"""Asking the user whether the tool servers of this folder may be used.

Owns the question of one conversation and its form for a panel; what trust means is decided below. Invariant:
an answer counts only for the content that was shown, and nothing of the file is used before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research_kit._words import visible_text
from research_kit.agent.trusting import TrustQuestion, find_trust_question, read_config_state
from research_kit.errors import ConfigError
from research_kit.masking import MASK
from research_kit.sources import trust_command

__all__ = ["ToolTrust"]

_DECISIONS = ("trust", "later")
# A question that nobody would read to its end is asked where it can be read.
_MAX_CHARACTERS = 8_000


class ToolTrust:
    """The question about the nearest ``mcp.json``, as one conversation asks it.

    Args:
        get_directory: Returns the folder from which the file is looked for; None when the conversation uses
            no servers, and nothing is asked.
    """

    def __init__(self, get_directory: Callable[[], Path] | None = Path.cwd) -> None:
        self._get_directory = get_directory
        self._lock = threading.Lock()
        self._question: TrustQuestion | None = None
        self._put_off: set[str] = set()

    def read_state(self) -> str:
        """Return what changes when other servers may be used."""
        directory = self._directory()
        return "" if directory is None else read_config_state(directory)

    def to_wire(self) -> dict[str, Any] | None:
        """Look at the file and return the question as a browser reads it; None when there is none to ask."""
        directory = self._directory()
        question = None if directory is None else find_trust_question(directory)
        with self._lock:
            self._question = question
            is_open = question is not None and question.question_id not in self._put_off
        return _wire(question) if question is not None and is_open else None

    def _directory(self) -> Path | None:
        try:
            return None if self._get_directory is None else self._get_directory()
        except OSError:  # the kernel's folder is gone
            return None

    def decide(self, question_id: str, decision: str) -> None:
        """Answer the question that was shown: ``trust``, or ``later`` for not now.

        Raises:
            ConfigError: When the decision is another word, the file has changed since it was shown, or what
                is trusted cannot be kept.
        """
        if decision not in _DECISIONS:
            raise ConfigError(f"The decision {decision!r} is not known. Give one of {', '.join(_DECISIONS)}.")
        with self._lock:
            question = self._question
            if question is None or question.question_id != question_id:
                raise ConfigError("The file has changed since it was shown here. Look at it again.")
            if decision == "later":
                self._put_off.add(question_id)
                return
        if not _wire(question)["is_whole"]:
            raise ConfigError(f"The file is too long to be judged here: {trust_command(question.file.path)}")
        question.accept()


def _wire(question: TrustQuestion) -> dict[str, Any]:
    servers = [
        {"name": plan.name, "deed": plan.deed, "details": list(plan.details)} for plan in question.plans
    ]
    text = "".join(f"{plan.name}{plan.deed}{''.join(plan.details)}" for plan in question.plans)
    is_whole = len(text) <= _MAX_CHARACTERS
    return {
        "question_id": question.question_id,
        "path": visible_text(str(question.file.path)),
        "servers": servers if is_whole else [],
        "is_whole": is_whole,
        "notes": list(_notes(question, text, is_whole=is_whole)),
    }


def _notes(question: TrustQuestion, text: str, *, is_whole: bool) -> list[str]:
    if not is_whole:
        count = len(question.plans)
        return [
            f"It names {count:,} server{'s' * (count != 1)} in more words than can be judged here. Read "
            f"it in a terminal: {visible_text(trust_command(question.file.path))}"
        ]
    notes = [
        "They run with your rights, and tools that they call read-only run without asking. You are asked "
        "again when the file changes."
    ]
    if MASK in text:
        notes.append(f"What looks like a secret is shown as {MASK}; the file has it.")
    return notes

"""What all views have in common: how they show themselves.

Owns the protocol of rich representations. Invariant: showing reads nothing and starts nothing, it only looks
at what the view already holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from research_kit.plain_text import plain_block

__all__ = ["View"]


class View(ABC):
    """Something that shows itself in a notebook, in a saved one, and in a terminal."""

    @abstractmethod
    def to_html(self) -> str:
        """Return one element of HTML that needs no script, no style sheet and no network."""

    @abstractmethod
    def compose_text(self) -> str:
        """Return the same as text, whatever characters it holds; `to_text` makes it plain."""

    def to_text(self) -> str:
        """Return the same as plain text, which a terminal and the log of a CI job can show."""
        return plain_block(self.compose_text())

    def __str__(self) -> str:
        """Return it as plain text."""
        return self.to_text()

    def __repr__(self) -> str:
        """Return it as plain text, so that a terminal shows it."""
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": self.to_text()}

"""Texts of notebooks as reports show them.

Owns the one way from a run into a report of any form. Invariant: what comes out has no secret that masking
knows and is plain (see `plain_text`), so a report only escapes what its own form takes for markup.
"""

from __future__ import annotations

from research_kit.masking import masked_text
from research_kit.plain_text import plain_characters, plain_text
from research_kit.regression.terminal_text import COLOUR

__all__ = ["shown_block", "shown_line"]


def shown_line(text: str) -> str:
    """Return ``text`` on one line."""
    return plain_text(_masked(text))


def shown_block(text: str) -> str:
    """Return ``text`` with its lines, which a report for a terminal quotes."""
    return plain_characters(_masked(text))


def _masked(text: str) -> str:
    # Also between colours: the letter that ends one makes another word of the secret behind it.
    parts = COLOUR.split(masked_text(text))
    return "".join([parts[0], *map(masked_text, parts[1:])]) if len(parts) > 1 else parts[0]

"""Texts made for a terminal, as plain text."""

from __future__ import annotations

import re

__all__ = ["COLOUR", "strip_colours"]

COLOUR = re.compile(r"(\x1b\[[0-9;?]*[ -/]*[@-~])")


def strip_colours(text: str) -> str:
    """Remove terminal colours and cursor movements."""
    return COLOUR.sub("", text)

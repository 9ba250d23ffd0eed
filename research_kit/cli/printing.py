"""What the commands print.

Owns the way to standard output. Invariant: no line controls the terminal or is a command of the CI system
that reads it, but those of `print_commands`, whose caller has encoded them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from research_kit.masking import masked_text
from research_kit.plain_text import plain_block

__all__ = ["print_commands", "say", "say_secret"]


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """Print lines without secrets; what is not plain in them is escaped."""
    print(plain_block(masked_text(text)), file=file, flush=True)


def say_secret(text: str) -> None:
    """Print lines with the secret that the command was asked for; what is not plain in them is escaped."""
    print(plain_block(text), flush=True)


def print_commands(lines: Iterable[str]) -> None:
    """Print commands for the CI system as they are."""
    for line in lines:
        print(line, flush=True)

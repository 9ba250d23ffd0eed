"""Lines of a log without secrets, which nobody else can add to.

Owns the formatter of our own processes' logs. Invariant: an exception's traceback is masked with its message,
and what a request or a file is called begins no line.
"""

from __future__ import annotations

import logging

from research_kit.masking.current import masked_text
from research_kit.plain_text import plain_lines

__all__ = ["MaskedFormatter"]


class MaskedFormatter(logging.Formatter):
    """Formats as `logging.Formatter` does, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, with its traceback when it has one."""
        first, *rest = plain_lines(masked_text(super().format(record)))
        return "\n".join([first, *(f"  | {line}" for line in rest)])

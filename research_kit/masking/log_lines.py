"""Lines of a log without secrets.

Owns the formatter of our own processes' logs. Invariant: an exception's traceback is masked with its message.
"""

from __future__ import annotations

import logging

from research_kit.masking.current import masked_text

__all__ = ["MaskedFormatter"]


class MaskedFormatter(logging.Formatter):
    """Formats as `logging.Formatter` does, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, with its traceback when it has one."""
        return masked_text(super().format(record))

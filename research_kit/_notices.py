"""Warnings about what a caller asked for, shown at the caller's own line."""

from __future__ import annotations

import inspect
import warnings

from research_kit.masking import masked_text
from research_kit.plain_text import plain_text

__all__ = ["warn_user"]

_PACKAGE = __name__.partition(".")[0]


def warn_user(message: str) -> None:
    """Warn at the nearest line outside research-kit, however many of our functions lie between."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_ours(str(frame.f_globals.get("__name__", ""))):
        level, frame = level + 1, frame.f_back
    warnings.warn(plain_text(masked_text(message)), stacklevel=level)


def _is_ours(module: str) -> bool:
    # The context managers of this package resume through contextlib.
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.") or module == "contextlib"

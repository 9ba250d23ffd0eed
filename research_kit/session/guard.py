"""The one guard between telemetry and the researcher's code.

Owns the decision that an error in telemetry never reaches a cell. Invariant: nothing else in the package
swallows an unexpected exception.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from research_kit.config import load_settings

__all__ = ["guarded", "take_telemetry_faults"]

logger = logging.getLogger(__name__)

_lock = Lock()
_faults: dict[str, str] = {}


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Keep an error of the telemetry inside from reaching the researcher's code.

    The first error of each place is logged with its traceback and shown by `research_kit.status()`; with
    ``RESEARCH_KIT_STRICT_TELEMETRY=true`` it is raised instead.

    Args:
        where: The hook or callback, for the message.
    """
    try:
        yield
    except Exception as error:  # telemetry must never break a cell
        if load_settings().strict_telemetry:
            raise
        with _lock:
            is_new = where not in _faults
            _faults.setdefault(where, f"{type(error).__name__}: {error}")
        if is_new:
            logger.debug("telemetry failed in %s; the cell goes on", where, exc_info=True)


def take_telemetry_faults() -> dict[str, str]:
    """Return the first error of each guarded place, by place."""
    with _lock:
        return dict(_faults)

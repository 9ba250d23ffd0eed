"""The one guard between telemetry and the researcher's code.

Owns the decision that an error in telemetry never reaches a cell. Invariant: nothing else in the package
swallows an unexpected exception.
"""

from __future__ import annotations

import logging
from threading import Lock
from types import TracebackType

from research_kit.config import is_telemetry_strict

__all__ = ["guarded", "take_telemetry_faults"]

logger = logging.getLogger(__name__)

_lock = Lock()
_faults: dict[str, str] = {}


class guarded:
    """Keep an error of the telemetry inside from reaching the researcher's code.

    The first error of each place is logged with its traceback and shown by `research_kit.status()`; with
    ``RESEARCH_KIT_STRICT_TELEMETRY=true`` it is raised instead.

    Args:
        where: The hook or callback, for the message.
    """

    # A class, because it is entered several times for every span, and a generator costs three times as much.
    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Begin what must not fail."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Keep ``error`` when it is one that telemetry can cause; interrupts go on."""
        if not isinstance(error, Exception) or is_telemetry_strict():
            return False
        with _lock:
            is_new = self._where not in _faults
            _faults.setdefault(self._where, f"{type(error).__name__}: {error}")
        if is_new:
            logger.debug("telemetry failed in %s; the cell goes on", self._where, exc_info=error)
        return True


def take_telemetry_faults() -> dict[str, str]:
    """Return the first error of each guarded place, by place."""
    with _lock:
        return dict(_faults)

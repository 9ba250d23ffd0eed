"""A progress bar for reads that take long.

Owns when a bar is shown; reads nothing. Invariant: nothing is shown for a read that takes less than a second,
and never without a terminal or a notebook unless it is asked for.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

__all__ = ["Progress"]

_SHOWN_AFTER_S = 1.0


class Progress:
    """Counts rows, and shows a bar when that takes long.

    Args:
        is_wanted: True shows the bar at once, False never; None after a second, where somebody can see it.
    """

    def __init__(self, is_wanted: bool | None) -> None:
        self._is_possible = _is_watched() if is_wanted is None else is_wanted
        self._shown_at_s = time.monotonic() + (0.0 if is_wanted else _SHOWN_AFTER_S)
        self._bar: Any = None
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int) -> None:
        """Count further rows; safe to call from any thread."""
        with self._lock:
            self._count += count
            if not self._is_possible or time.monotonic() < self._shown_at_s:
                return
            if self._bar is None:
                self._bar = _bar_class()(desc="Reading traces", unit=" rows", leave=False)
            self._bar.update(self._count - self._bar.n)


def _is_watched() -> bool:
    return _shell() is not None or sys.stderr.isatty()


def _bar_class() -> Any:
    # `tqdm.auto` takes every process that has imported ipykernel for a notebook, scripts as well.
    if hasattr(_shell(), "kernel"):
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar
    from tqdm import tqdm

    return tqdm


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()

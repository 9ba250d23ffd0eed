"""Trace and span ids that do not depend on the global random state.

A notebook that calls ``random.seed(42)`` would give every run the same ids with OpenTelemetry's default
generator, and the runs would overwrite each other.
"""

from __future__ import annotations

import os
import random

from opentelemetry.sdk.trace.id_generator import IdGenerator

__all__ = ["OwnIdGenerator"]


class OwnIdGenerator(IdGenerator):
    """Draws ids from a random state of its own, which begins with entropy of the operating system."""

    def __init__(self) -> None:
        self._random = random.Random()
        if hasattr(os, "register_at_fork"):
            # Else a forked child would draw its parent's next ids.
            os.register_at_fork(after_in_child=self._random.seed)

    def generate_span_id(self) -> int:
        """Return a span id: 64 bits, never zero."""
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """Return a trace id: 128 bits, never zero."""
        return self._random.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        """Say that all bits are uniformly random."""
        return True

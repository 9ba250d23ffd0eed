"""Trace and span ids that do not depend on the global random state.

A notebook that calls ``random.seed(42)`` would give every run the same ids with OpenTelemetry's default
generator, and the runs would overwrite each other.
"""

from __future__ import annotations

import secrets

from opentelemetry.sdk.trace.id_generator import IdGenerator

__all__ = ["SecretsIdGenerator"]


class SecretsIdGenerator(IdGenerator):
    """Draws ids from the operating system."""

    def generate_span_id(self) -> int:
        """Return a span id: 64 bits, never zero."""
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        """Return a trace id: 128 bits, never zero."""
        return secrets.randbits(128) or 1

    def is_trace_id_random(self) -> bool:
        """Say that all bits are uniformly random."""
        return True

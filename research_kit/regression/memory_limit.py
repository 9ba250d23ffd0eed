"""How much memory a kernel may ask for."""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["limit_memory"]


def limit_memory(pid: int | None, limit_mb: float) -> None:
    """Let a running process ask for at most ``limit_mb`` megabytes: beyond, it gets a `MemoryError`.

    Only Linux can limit a process that runs already; elsewhere nothing happens.
    """
    if sys.platform == "linux" and pid is not None:
        import resource

        with suppress(ProcessLookupError):
            limit_bytes = int(limit_mb * 1_000_000)
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

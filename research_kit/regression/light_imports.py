"""Faster starts of processes that are ours alone."""

from __future__ import annotations

import sys

__all__ = ["skip_slow_formats"]

# jsonschema imports it for two formats of addresses, and it compiles a grammar for seconds. Notebooks are
# validated without formats.
_SLOW = "rfc3987_syntax"


def skip_slow_formats() -> None:
    """Let jsonschema, when it is imported, do without formats that nothing here asks for.

    Only for processes that run nothing but notebooks: other programs may want the formats.
    """
    sys.modules.setdefault(_SLOW, None)  # type: ignore[arg-type]  # Python's own way to say that there is none

"""Faster starts of processes that are ours alone."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["skip_slow_formats"]

# jsonschema imports it for two formats of addresses, and it compiles a grammar for seconds. Notebooks are
# validated without formats.
_SLOW = "rfc3987_syntax"


def skip_slow_formats() -> None:
    """Import jsonschema without a format that nothing here asks for.

    Only for processes that run nothing but notebooks: other programs may want the format.
    """
    if "jsonschema" in sys.modules or _SLOW in sys.modules:
        return
    sys.modules[_SLOW] = None  # type: ignore[assignment]  # Python's own way to say that it cannot be imported
    try:
        import_module("jsonschema")
    finally:
        del sys.modules[_SLOW]

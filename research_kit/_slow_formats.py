"""Faster starts: a grammar that jsonschema compiles when it is imported is compiled when it is asked for.

Owns the stand-in of one package. Invariant: whoever asks for anything of that package gets the package
itself.
"""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec, module_from_spec
from typing import Any

__all__ = ["defer_slow_formats"]

# jsonschema takes one function of it for two formats of addresses, and so every import of dspy, nbformat or a
# Jupyter server compiles its grammar, which takes longer than all else that they import.
_SLOW = "rfc3987_syntax"
_CHECK = "is_valid_syntax"


def defer_slow_formats() -> None:
    """Let the package be executed when an address is checked, or another of its names is asked for."""
    if _SLOW in sys.modules:
        return
    spec = find_spec(_SLOW)
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, module_from_spec(spec)

    lock = threading.RLock()

    def get_attribute(name: str) -> Any:
        with lock:
            if module.__dict__.pop("__getattr__", None) is not None:
                del module.__dict__[_CHECK]
                loader.exec_module(module)
        try:
            return module.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {_SLOW!r} has no attribute {name!r}") from None

    def is_valid_syntax(term: str, value: str) -> Any:
        return get_attribute(_CHECK)(term, value)

    module.__dict__.update({"__getattr__": get_attribute, _CHECK: is_valid_syntax})
    sys.modules[_SLOW] = module

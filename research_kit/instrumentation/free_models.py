"""Models that cost nothing to call.

A model on the researcher's own machine has no price in any table, so its cost would read as unknown; the
module that starts such a model declares it here.
"""

from __future__ import annotations

__all__ = ["declare_free_models", "is_free_model"]

_free_prefixes: set[str] = set()


def declare_free_models(prefix: str) -> None:
    """Say that calls of models whose name begins with ``prefix`` cost nothing."""
    _free_prefixes.add(prefix)


def is_free_model(model: str) -> bool:
    """Say whether calls of ``model`` cost nothing."""
    return model.startswith(tuple(_free_prefixes))

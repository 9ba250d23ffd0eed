"""Imports of optional dependencies, with an error that gives the exact command to install them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from research_kit.errors import MissingExtraError

__all__ = ["DISTRIBUTION", "installation", "require"]

DISTRIBUTION = "jupyter-research-kit"
"""The name under which pip knows this package; `research-kit` there is somebody else's."""


def installation(extra: str) -> str:
    """Return the command that installs ``extra``."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``module``, or say how to install it.

    Args:
        module: The dotted module name.
        extra: The extra of research-kit that brings it.
        purpose: What it is needed for, as the end of "needed to ...".

    Raises:
        MissingExtraError: When the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"The package {module!r} is not installed; it is needed to {purpose}. "
            f"Install it with: {installation(extra)}"
        ) from error

"""Observing libraries: DSPy with our callback, others through their maintained instrumentation packages.

Owns the one callback object. Invariant: nothing is imported that the researcher did not import or name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from research_kit import session
from research_kit.errors import ConfigError
from research_kit.instrumentation.instrumentors import INSTRUMENTORS, is_instrumented, load_instrumentor

if TYPE_CHECKING:
    from research_kit.instrumentation.dspy_callback import ObservationCallback

__all__ = ["instrument", "instrument_dspy", "is_dspy_instrumented", "uninstrument", "uninstrument_dspy"]

_callback: ObservationCallback | None = None


def instrument(name: str) -> bool:
    """Observe the calls of a library in the session of this process; repeated calls change nothing.

    Args:
        name: ``"dspy"``; ``"openai"``, ``"litellm"`` or ``"anthropic"`` for calls made with these libraries
            themselves (extra ``instrument``); ``"mcp"`` for an MCP server or client in a program of its own.
            The extension ``%load_ext research_kit`` observes DSPy and MCP without being asked.

    Returns:
        False when nothing is observed, because no session is bound or tracing is disabled.

    Raises:
        ConfigError: When no such library is known, or its version does not fit.
        MissingExtraError: When the instrumentation package or the library is not installed.
    """
    _check_name(name)
    if not session.activate():
        return False
    if name == "dspy":
        import_module("dspy")
        return instrument_dspy()
    # MCP's SDK makes its spans itself as soon as tracing is on.
    if name in INSTRUMENTORS and not is_instrumented(name):
        load_instrumentor(name).instrument()
    return True


def uninstrument(name: str) -> None:
    """Stop observing the calls of a library.

    Raises:
        ConfigError: When no such library is known; MCP's own spans end with `research_kit.unbind`.
    """
    _check_name(name)
    if name == "dspy":
        uninstrument_dspy()
    elif name in INSTRUMENTORS and is_instrumented(name):
        load_instrumentor(name).uninstrument()


def instrument_dspy() -> bool:
    """Observe every DSPy call of the process; repeated calls change nothing.

    Called before each cell, because the list with our callback may have been replaced in other ways than
    with ``dspy.configure(callbacks=...)``.

    Returns:
        False while DSPy is not imported.
    """
    global _callback
    dspy = sys.modules.get("dspy")
    # A cell that is interrupted while importing leaves the module without its settings.
    if dspy is None or not hasattr(dspy, "settings"):
        return False
    if _callback is None:
        from research_kit.instrumentation.callback_keeping import keep_callback
        from research_kit.instrumentation.dspy_callback import ObservationCallback
        from research_kit.instrumentation.dspy_wrappers import wrap_dspy

        wrap_dspy()
        keep_callback(lambda: _callback if is_dspy_instrumented() else None)
        _callback = ObservationCallback()
    # Appending works from every thread; dspy.configure is tied to the thread that called it first.
    if _callback not in dspy.settings.callbacks:
        dspy.settings.callbacks.append(_callback)
    return True


def uninstrument_dspy() -> None:
    """Stop observing DSPy calls."""
    dspy = sys.modules.get("dspy")
    if dspy is not None and _callback is not None and _callback in dspy.settings.callbacks:
        dspy.settings.callbacks.remove(_callback)


def is_dspy_instrumented() -> bool:
    """Say whether DSPy calls are observed now."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and _callback is not None and _callback in dspy.settings.callbacks


def _check_name(name: str) -> None:
    known = sorted([*INSTRUMENTORS, "dspy", "mcp"])
    if name not in known:
        raise ConfigError(
            f"{name!r} is not a library that can be observed. Use one of: {', '.join(map(repr, known))}; "
            "calls of others can be observed with research_kit.trace_span()."
        )

"""DSPy and MCP calls into observations of the kernel's session."""

from research_kit.instrumentation.install import (
    instrument,
    instrument_dspy,
    is_dspy_instrumented,
    uninstrument,
    uninstrument_dspy,
)
from research_kit.instrumentation.prices import declare_free_models

__all__ = [
    "declare_free_models",
    "instrument",
    "instrument_dspy",
    "is_dspy_instrumented",
    "uninstrument",
    "uninstrument_dspy",
]

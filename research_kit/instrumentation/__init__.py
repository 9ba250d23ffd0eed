"""DSPy and MCP calls into observations of the kernel's session."""

from research_kit.instrumentation.free_models import declare_free_models
from research_kit.instrumentation.install import (
    instrument,
    instrument_dspy,
    is_dspy_instrumented,
    uninstrument,
    uninstrument_dspy,
)

__all__ = [
    "declare_free_models",
    "instrument",
    "instrument_dspy",
    "is_dspy_instrumented",
    "uninstrument",
    "uninstrument_dspy",
]

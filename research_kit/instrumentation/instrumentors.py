"""The maintained instrumentation packages of other libraries.

Owns their names and whether they are active; spans are theirs. Invariant: asking imports nothing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from research_kit._optional import DISTRIBUTION, require
from research_kit.errors import ConfigError, MissingExtraError

__all__ = ["INSTRUMENTORS", "is_instrumented", "load_instrumentor"]

# Library: the module and class of its instrumentor.
INSTRUMENTORS = {
    "anthropic": ("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
    "litellm": ("openinference.instrumentation.litellm", "LiteLLMInstrumentor"),
    "openai": ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
}
_DSPY = ("openinference.instrumentation.dspy", "DSPyInstrumentor")


def is_instrumented(library: str) -> bool:
    """Say whether an instrumentation package observes ``library`` now; DSPy's, which we never load, too."""
    module_name, class_name = _DSPY if library == "dspy" else INSTRUMENTORS[library]
    module = sys.modules.get(module_name)
    # Missing while the module is being imported.
    instrumentor = getattr(module, class_name, None)
    return instrumentor is not None and bool(instrumentor().is_instrumented_by_opentelemetry)


def load_instrumentor(library: str) -> Any:
    """Return the instrumentor of ``library``, checked to fit what is installed.

    Raises:
        MissingExtraError: When the instrumentation package or the library is not installed.
        ConfigError: When the installed library has a version that the package does not know.
    """
    module_name, class_name = INSTRUMENTORS[library]
    purpose = f"observe calls of {library}"
    module = require(module_name, extra="instrument", purpose=purpose)
    dependencies = require("opentelemetry.instrumentation.dependencies", extra="instrument", purpose=purpose)
    instrumentor = getattr(module, class_name)()
    conflict = dependencies.get_dependency_conflicts(instrumentor.instrumentation_dependencies())
    if conflict is None:
        return instrumentor
    if find_spec(library) is None:
        raise MissingExtraError(
            f"{library!r} cannot be observed: it is not installed. Install it with: pip install {library}"
        )
    raise ConfigError(
        f"{library!r} cannot be observed with the installed versions: {conflict}. "
        f"Upgrade both: pip install --upgrade {library} '{DISTRIBUTION}[instrument]'"
    )

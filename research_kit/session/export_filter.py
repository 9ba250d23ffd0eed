"""Which spans of the process are sent.

Langfuse's own filter keeps the MCP server's span and drops the client's, which leaves the server span without
its parent. The rule here keeps both for the calls that matter, and nothing else of the MCP SDK. And it keeps
one generation per call where a library makes spans itself and its instrumentation package makes them too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

from opentelemetry.sdk.trace import ReadableSpan

from research_kit.session.attribute_names import SESSION_ID

__all__ = [
    "LANGFUSE_SCOPE",
    "MCP_SCOPE",
    "REPETITION",
    "is_of_project",
    "is_sent",
    "repeats_its_parent",
    "sent_if",
    "should_export_span",
]

LANGFUSE_SCOPE = "langfuse-sdk"
MCP_SCOPE = "mcp-python-sdk"
# A library's own scope, whose spans know no inputs and outputs: the instrumentor whose spans do.
_ALSO_INSTRUMENTED = {
    "com.anthropic.sdk.python": ("openinference.instrumentation.anthropic", "AnthropicInstrumentor")
}
# Libraries that call others which may be observed too; both would count the same tokens.
_OUTER_SCOPES = frozenset({"openinference.instrumentation.litellm"})
_OPENAI_SCOPE = "openinference.instrumentation.openai"
_INNER_SCOPES = frozenset({"openinference.instrumentation.anthropic", _OPENAI_SCOPE})
# Records every call of OpenAI's library once it is imported, beside an instrumentation and not around it.
_OPENAI_DROP_IN = "langfuse.openai"
# On a span that tells once more what its parent tells.
REPETITION = "research_kit.repetition"
_MCP_METHODS = frozenset({"tools/call", "resources/read", "prompts/get"})


def should_export_span(span: ReadableSpan) -> bool:
    """Say whether ``span`` belongs into a trace: Langfuse's choice, and both sides of MCP calls."""
    scope = span.instrumentation_scope
    if scope is not None and scope.name in _INNER_SCOPES and REPETITION in (span.attributes or {}):
        return False
    if scope is not None and scope.name == _OPENAI_SCOPE and _OPENAI_DROP_IN in sys.modules:
        return False
    if scope is not None and scope.name in _ALSO_INSTRUMENTED and _is_instrumented(scope.name):
        return False
    if scope is not None and scope.name == MCP_SCOPE:
        return (span.attributes or {}).get("mcp.method.name") in _MCP_METHODS
    return _langfuse_choice()(span)


def is_sent(span: ReadableSpan) -> bool:
    """Say whether ``span`` is delivered; without a session it began while nothing was bound."""
    return SESSION_ID in (span.attributes or {}) and should_export_span(span)


def sent_if(choice: Callable[[ReadableSpan], bool] | None) -> Callable[[ReadableSpan], bool]:
    """Return what says whether a span is delivered, with user code's choice of spans in the place of ours."""
    if choice is None:
        return is_sent
    return lambda span: SESSION_ID in (span.attributes or {}) and choice(span)


def is_of_project(span: ReadableSpan, public_key: str) -> bool:
    """Say whether ``span`` may be recorded here: a Langfuse client for other keys records its own."""
    scope = span.instrumentation_scope
    if scope is None or scope.name != LANGFUSE_SCOPE:
        return True
    return (scope.attributes or {}).get("public_key", public_key) == public_key


@cache
def _langfuse_choice() -> Callable[[ReadableSpan], bool]:
    # Not above: in a kernel, importing Langfuse switches tracing on, which needs this module whole.
    from langfuse.span_filter import is_default_export_span

    return is_default_export_span


def repeats_its_parent(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Say whether ``span`` is the call of a provider's library that its parent, of another library, makes."""
    scope, parent_scope = span.instrumentation_scope, parent.instrumentation_scope
    if scope is None or parent_scope is None or scope.name not in _INNER_SCOPES:
        return False
    return parent_scope.name in _OUTER_SCOPES


def _is_instrumented(scope_name: str) -> bool:
    module_name, class_name = _ALSO_INSTRUMENTED[scope_name]
    # Missing while the module is being imported.
    instrumentor = getattr(sys.modules.get(module_name), class_name, None)
    return instrumentor is not None and bool(instrumentor().is_instrumented_by_opentelemetry)

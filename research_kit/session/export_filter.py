"""Which spans of the process are sent.

Langfuse's own filter keeps the MCP server's span and drops the client's, which leaves the server span without
its parent. The rule here keeps both for the calls that matter, and nothing else of the MCP SDK.
"""

from __future__ import annotations

from langfuse.span_filter import is_default_export_span
from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["should_export_span"]

_MCP_SCOPE = "mcp-python-sdk"
_MCP_METHODS = frozenset({"tools/call", "resources/read", "prompts/get"})


def should_export_span(span: ReadableSpan) -> bool:
    """Say whether ``span`` belongs into a trace: Langfuse's choice, and both sides of MCP calls."""
    scope = span.instrumentation_scope
    if scope is not None and scope.name == _MCP_SCOPE:
        return (span.attributes or {}).get("mcp.method.name") in _MCP_METHODS
    return is_default_export_span(span)

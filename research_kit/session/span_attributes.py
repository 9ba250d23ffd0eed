"""The attributes of a span as a dict.

Through the mapping that OpenTelemetry hands out, each look takes a lock or copies all keys.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["span_attributes"]


def span_attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return a copy of the attributes that ``span`` has now."""
    attributes = span.attributes
    return attributes.copy() if isinstance(attributes, MappingProxyType) else dict(attributes or {})

"""What Langfuse calls the attributes of a span, for all that writes or reads spans in this process.

Owns the names; sets none, and imports nothing. Those who know spans from the wire (`store`, `transfer`) have
names of their own, so that a mistake here cannot hide there.
"""

from __future__ import annotations

__all__ = [
    "COMPLETION_START",
    "ENVIRONMENT",
    "OBSERVATION",
    "RELEASE",
    "SESSION_ID",
    "TRACE_METADATA",
    "TRACE_NAME",
    "TRACE_TAGS",
    "USER_ID",
]

SESSION_ID = "session.id"
USER_ID = "user.id"
ENVIRONMENT = "langfuse.environment"
RELEASE = "langfuse.release"
TRACE_NAME = "langfuse.trace.name"
TRACE_TAGS = "langfuse.trace.tags"
TRACE_METADATA = "langfuse.trace.metadata."
"""Before a key, whose value is JSON; children of a trace inherit it."""
OBSERVATION = "langfuse.observation."
"""Before ``type``, ``input``, ``output``, ``level``, ``model.name``, ``usage_details``, ``metadata.…``."""
COMPLETION_START = OBSERVATION + "completion_start_time"

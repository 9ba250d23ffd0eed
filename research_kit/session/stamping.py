"""The span processor that puts the session on every span of the process, whoever started it.

Owns stamping only; delivery is elsewhere. Invariants: what user code set itself wins; a span inherits from
its parent while that is open, so a trace keeps the session it began with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeAlias
from weakref import WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.util.types import AttributeValue

from research_kit.session.attribute_names import (
    ENVIRONMENT,
    RELEASE,
    SESSION_ID,
    TRACE_METADATA,
    TRACE_NAME,
    TRACE_TAGS,
    USER_ID,
)
from research_kit.session.export_filter import REPETITION, repeats_its_parent
from research_kit.session.guard import guarded
from research_kit.session.identity import Identity
from research_kit.session.span_attributes import span_attributes

__all__ = ["StampingProcessor", "identity_attributes"]

Stamp: TypeAlias = Mapping[str, AttributeValue]

_INHERITED = frozenset({SESSION_ID, USER_ID, TRACE_NAME, ENVIRONMENT, RELEASE, TRACE_TAGS})


class StampingProcessor(SpanProcessor):
    """Fills in missing session attributes when a span starts.

    Args:
        get_stamp: Returns the attributes of the session that is current now; empty when there is none.
    """

    def __init__(self, get_stamp: Callable[[], Stamp]) -> None:
        self._get_stamp = get_stamp
        # Keyed by span id, so that a parent is found across threads and through MCP's in-memory transport.
        # Weak, so that a span that is never ended does not stay for the life of the kernel.
        self._open: WeakValueDictionary[int, Span] = WeakValueDictionary()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp ``span`` from its open parent, its caller in another process, or the current session.

        The caller's session comes as baggage, which Langfuse's processor has put on the span already.
        """
        with guarded("span start"):
            parent, own = span.parent, span_attributes(span)
            open_parent = self._open.get(parent.span_id) if parent is not None else None
            if open_parent is not None:
                stamp = _inheritable(span_attributes(open_parent))
                if repeats_its_parent(span, open_parent):
                    span.set_attribute(REPETITION, True)
            elif parent is not None and parent.is_remote and SESSION_ID in own:
                stamp = _of_process(self._get_stamp())
            else:
                stamp = self._get_stamp()
            span.set_attributes(_missing(stamp, own))
            self._open[span.get_span_context().span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        """Forget ``span``; spans that start later get the session that is current then."""
        context = span.get_span_context()
        if context is not None:
            self._open.pop(context.span_id, None)


def identity_attributes(identity: Identity) -> Stamp:
    """Return the span attributes that carry ``identity``, as Langfuse names them."""
    stamp: dict[str, AttributeValue] = {SESSION_ID: identity.session_id}
    if identity.user_id:
        stamp[USER_ID] = identity.user_id
    if identity.tags:
        stamp[TRACE_TAGS] = identity.tags
    if identity.environment:
        stamp[ENVIRONMENT] = identity.environment
    if identity.release:
        stamp[RELEASE] = identity.release
    for key, value in identity.metadata.items():
        # Langfuse's SDK sends metadata JSON-encoded, texts too.
        stamp[TRACE_METADATA + key] = json.dumps(value, ensure_ascii=False)
    return stamp


def _of_process(stamp: Stamp) -> Stamp:
    # The caller in another process has sent its session; user, tags and metadata here are of another one.
    return {key: stamp[key] for key in (ENVIRONMENT, RELEASE) if key in stamp}


def _missing(stamp: Stamp, own: Stamp) -> dict[str, AttributeValue]:
    missing = {key: value for key, value in stamp.items() if key not in own}
    if TRACE_TAGS in stamp and TRACE_TAGS in own:
        missing[TRACE_TAGS] = tuple(dict.fromkeys([*_as_tags(own[TRACE_TAGS]), *_as_tags(stamp[TRACE_TAGS])]))
    return missing


def _as_tags(value: AttributeValue) -> list[str]:
    return (
        [value]
        if isinstance(value, str)
        else [str(tag) for tag in value]
        if isinstance(value, tuple | list)
        else []
    )


def _inheritable(attributes: Stamp) -> Stamp:
    return {k: v for k, v in attributes.items() if k in _INHERITED or k.startswith(TRACE_METADATA)}

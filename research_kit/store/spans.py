"""A span as it came in, whatever its encoding.

Owns the values that the decoders make and the rest of the store reads, and the refusal of exports that
cannot be stored. Invariant: an export is taken as a whole or refused as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_NANOSECONDS", "Attributes", "ExportError", "Origin", "Problems", "Span"]

Attributes = dict[str, Any]

MAX_NANOSECONDS = 2**63 - 1
_REFUSED = (
    "Invalid OTLP trace export: {bad} of {total} span(s) cannot be processed ({problems}). {rule} The entire "
    "export was rejected and no spans were ingested. Instrumentation scopes: {scopes}. This endpoint accepts "
    "OpenTelemetry traces only — if you are exporting OpenTelemetry logs, point your log exporter elsewhere."
)
_RULE_IDS = "traceId and spanId are required on every span, and each must be a string or a byte array."
_RULE_ARRAYS = (
    "scopeSpans, spans, attributes and events must all be arrays — OTLP attributes are a list of {key, "
    "value} entries, not a JSON object."
)


class ExportError(ValueError):
    """An export that is refused; the message is the text of the answer."""


# Compared by identity: the spans of an export share one, and what follows from it is worked out once.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """What the spans of one instrumentation scope have in common."""

    resource_attributes: Attributes
    scope_name: str
    scope_version: str
    scope_attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span as it came in.

    Attributes:
        parent_id: None for a span without parent.
        end_ns: None for a span that has not ended.
        status_code: 0 unset, 1 ok, 2 error.
        events: Name and attributes of each event.
    """

    origin: Origin
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int | None
    status_code: int
    status_message: str
    attributes: Attributes
    events: list[tuple[str, Attributes]]


@dataclass(slots=True)
class Problems:
    """What is wrong with the spans of one export."""

    bad_span_count: int = 0
    kinds: dict[str, None] = field(default_factory=dict)
    scopes: dict[str, None] = field(default_factory=dict)

    def see_scope(self, name: str) -> None:
        """Remember a scope, for the message."""
        if name:
            self.scopes[name] = None

    def check_ids(self, trace_id: object, span_id: object) -> None:
        """Note ids that are missing."""
        found = [
            f"{name}:absent" for name, value in (("traceId", trace_id), ("spanId", span_id)) if not value
        ]
        if found:
            self.add(*found)

    def add(self, *kinds: str) -> None:
        """Note one more bad span with what is wrong with it."""
        self.bad_span_count += 1
        self.kinds.update(dict.fromkeys(kinds))

    def raise_if_any(self, span_count: int) -> None:
        """Refuse the export when anything was noted.

        Raises:
            ExportError: In the words of the recorded server.
        """
        if not self.kinds:
            return
        rules = [
            _RULE_IDS if any(kind.startswith(("traceId", "spanId")) for kind in self.kinds) else "",
            _RULE_ARRAYS if any(kind.endswith("not_an_array") for kind in self.kinds) else "",
        ]
        raise ExportError(
            _REFUSED.format(
                bad=self.bad_span_count,
                total=max(span_count, self.bad_span_count),
                problems=", ".join(self.kinds),
                rule=" ".join(filter(None, rules)) or "Every field must have the type that OTLP gives it.",
                scopes=", ".join(self.scopes) or "unknown",
            )
        )

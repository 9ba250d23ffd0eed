"""A span as it came in, whatever its encoding.

Owns the values that the decoders make and the rest of the store reads, and the refusal of exports that
cannot be stored. Invariant: an export is taken as a whole or refused as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_NANOSECONDS", "Attributes", "ExportError", "Origin", "Problems", "Span"]

Attributes = dict[str, Any]

MAX_NANOSECONDS = 2**63 - 1
_MAX_SCOPES = 5
_REFUSED = (
    "Invalid OTLP trace export: {what} ({kinds}). {rules} The entire export was rejected and no spans were "
    "ingested. Instrumentation scopes: {scopes}. This endpoint accepts OpenTelemetry traces only — if you "
    "are exporting OpenTelemetry logs, point your log exporter elsewhere."
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
        start_ns: None when it did not come along.
        end_ns: None for a span that has not ended.
        status_code: 0 unset, 1 ok, 2 error.
        events: Name and attributes of each event.
    """

    origin: Origin
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int | None
    end_ns: int | None
    status_code: int
    status_message: str
    attributes: Attributes
    events: list[tuple[str, Attributes]]


@dataclass(slots=True)
class Problems:
    """What is wrong with the spans of one export.

    Attributes:
        span_count: All spans that were seen.
        bad_span_count: Those that cannot be stored.
        bad_list_count: Fields above the spans that should be lists and are not.
        kinds: What is wrong, each once, in the order of its first appearance.
        scopes: The scopes in which something is wrong.
    """

    span_count: int = 0
    bad_span_count: int = 0
    bad_list_count: int = 0
    kinds: dict[str, None] = field(default_factory=dict)
    scopes: dict[str, None] = field(default_factory=dict)

    def see_span(self, scope_name: str, kinds: Sequence[str]) -> None:
        """Count a span, with what is wrong with it."""
        self.span_count += 1
        if kinds:
            self.bad_span_count += 1
            self._note(scope_name, kinds)

    def see_bad_list(self, kind: str, scope_name: str = "") -> None:
        """Count a field above the spans that should be a list."""
        self.bad_list_count += 1
        self._note(scope_name, (kind,))

    def _note(self, scope_name: str, kinds: Sequence[str]) -> None:
        self.kinds.update(dict.fromkeys(kinds))
        if scope_name and len(self.scopes) < _MAX_SCOPES:
            self.scopes[scope_name] = None

    def raise_if_any(self) -> None:
        """Refuse the export when anything was noted.

        Raises:
            ExportError: In the words of the recorded server.
        """
        if not self.kinds:
            return
        whats, rules = [], []
        if self.bad_span_count:
            whats.append(f"{self.bad_span_count} of {self.span_count} span(s) cannot be processed")
        if self.bad_list_count:
            whats.append(
                f"{self.bad_list_count} resource- or scope-level field(s) are present but not arrays"
            )
        if any(kind.endswith((":absent", ":not_an_id")) for kind in self.kinds):
            rules.append(_RULE_IDS)
        if any(kind.endswith(":not_an_array") for kind in self.kinds):
            rules.append(_RULE_ARRAYS)
        raise ExportError(
            _REFUSED.format(
                what="; ".join(whats),
                kinds=", ".join(self.kinds),
                rules=" ".join(rules),
                scopes=", ".join(self.scopes) or "unknown",
            )
        )

"""Metadata of one span: which keys, and in which form they are kept.

Owns the merging of all sources. Invariant: every value is kept as the text the client stored (what filters
compare), and answers parse that text as JSON where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from research_kit.store.content import is_content
from research_kit.store.jsontext import compact, parse_or_none, parse_or_text
from research_kit.store.spans import Origin, Span

__all__ = ["SHORT_VALUE_CHARACTERS", "Metadata", "read_metadata"]

SHORT_VALUE_CHARACTERS = 200

_OBSERVATION = "langfuse.observation.metadata"
_TRACE = "langfuse.trace.metadata"
_EITHER = "langfuse.metadata"
_VERCEL = "ai.telemetry.metadata"
# These become fields of the observation.
_VERCEL_FIELDS = frozenset(f"{_VERCEL}.{name}" for name in ("userId", "sessionId", "tags", "langfusePrompt"))
_LANGFUSE_SCOPE = "langfuse-sdk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The three forms of one observation's metadata, each a JSON object as text.

    Attributes:
        stored: Each value as the text that was stored.
        parsed: Each value parsed where it is JSON.
        short: As ``parsed``, with long texts cut; None when nothing had to be cut.
    """

    stored: str
    parsed: str
    short: str | None


def read_metadata(span: Span) -> Metadata:
    """Collect the metadata of a span."""
    candidates = {key: value for key, value in span.attributes.items() if "metadata" in key}
    own = _own(candidates, _OBSERVATION) | _own(candidates, _TRACE)
    values = dict(_origin_values(span.origin))
    if not span.origin.scope_name.startswith(_LANGFUSE_SCOPE):
        for key, value in span.attributes.items():
            if not is_content(key) and not key.startswith((_OBSERVATION, _TRACE, _VERCEL)):
                _flatten(f"attributes.{key}", value, values)
    for group in _GROUPS & own.keys():
        # What the client calls so stands in the place of the whole group.
        values = {key: value for key, value in values.items() if not key.startswith(f"{group}.")}
    for key, value in own.items():
        _flatten(key, value, values)
    return _forms(tuple(values.items()))


_GROUPS = frozenset(("attributes", "resourceAttributes", "scope"))


def _own(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    whole = attributes.get(name) or attributes.get(_EITHER)
    whole = parse_or_none(whole) if isinstance(whole, str) else whole
    if isinstance(whole, list):
        whole = {str(position): part for position, part in enumerate(whole)}
    values: dict[str, Any] = dict(whole) if isinstance(whole, dict) else {}
    for key, value in attributes.items():
        for prefix in (f"{name}.", f"{_EITHER}.", f"{_VERCEL}."):
            if key.startswith(prefix) and len(key) > len(prefix) and key not in _VERCEL_FIELDS:
                values[key[len(prefix) :]] = value
    return values


def _flatten(key: str, value: Any, into: dict[str, str]) -> None:
    """Store ``value`` as text; objects become one key per leaf."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            _flatten(f"{key}.{inner_key}", inner, into)
    elif value is not None:
        into[key] = value if isinstance(value, str) else compact(value)


@lru_cache(maxsize=64)
def _origin_values(origin: Origin) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in (("scope.name", origin.scope_name), ("scope.version", origin.scope_version)):
        if value:
            values[key] = value
    for key, value in origin.scope_attributes.items():
        _flatten(f"scope.attributes.{key}", value, values)
    for key, value in origin.resource_attributes.items():
        _flatten(f"resourceAttributes.{key}", value, values)
    return values


# Spans of one export mostly differ in few keys or none, so many ask for the same text.
@lru_cache(maxsize=256)
def _forms(items: tuple[tuple[str, str], ...]) -> Metadata:
    parsed = {key: parse_or_text(text) for key, text in items}
    short = {
        key: parse_or_text(text[:SHORT_VALUE_CHARACTERS])
        for key, text in items
        if len(text) > SHORT_VALUE_CHARACTERS
    }
    return Metadata(
        stored=compact(dict(items)),
        parsed=compact(parsed),
        short=compact({**parsed, **short}) if short else None,
    )

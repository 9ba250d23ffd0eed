"""One database row per observation, made from a span.

Owns every rule by which a span's attributes become an observation's fields; the parts with rules of their
own are `content`, `metadata` and `usage`. Invariant: a row depends on its span alone, so the spans of a
trace may arrive in any order and any number of requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from research_kit.store.content import read_content
from research_kit.store.jsontext import compact, parse_or_none
from research_kit.store.metadata import read_metadata
from research_kit.store.observation_row import LEVELS, OBSERVATION_TYPES, ObservationRow
from research_kit.store.spans import Span
from research_kit.store.times import iso_to_ms
from research_kit.store.usage import read_consumption
from research_kit.store.xxhash32 import xxhash32

__all__ = ["make_row", "valid_environment"]

_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
_STATUS_ERROR = 2
_MAX_PROMPT_VERSION = 2**31 - 1
_TYPES_BY_LANGFUSE_NAME = {name.lower(): name for name in OBSERVATION_TYPES}
_TYPES_BY_OPENINFERENCE_KIND = {
    "LLM": "GENERATION",
    **{kind: kind for kind in ("AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")},
}
_TYPES_BY_OPERATION = {
    "chat": "GENERATION",
    "completion": "GENERATION",
    "text_completion": "GENERATION",
    "generate_content": "GENERATION",
    "generate": "GENERATION",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "embeddings": "EMBEDDING",
}
_MODEL_KEYS = (
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.model_name",
    "model",
)
_TAG_KEYS = ("langfuse.trace.tags", "langfuse.tags", "tag.tags")


def make_row(span: Span, *, now_ms: int) -> ObservationRow:
    """Make the row of one span.

    Args:
        span: The span as it came in.
        now_ms: The time of arrival.
    """
    attributes = span.attributes
    observation_type = _type(attributes)
    content = read_content(span)
    metadata = read_metadata(span, consumed=content.consumed)
    return ObservationRow(
        **_identity(span),
        **_trace_context(span),
        **_consumption(attributes),
        **_prompt(attributes, is_generation=observation_type == "GENERATION"),
        type=observation_type,
        level=_level(span),
        status_message=_first_text(attributes, ("langfuse.observation.status_message",))
        or span.status_message,
        created_ms=now_ms,
        metadata=metadata.parsed,
        metadata_short=metadata.short,
        metadata_stored=metadata.stored,
        input=content.input,
        output=content.output,
    )


def _identity(span: Span) -> dict[str, Any]:
    start_ms = span.start_ns // 1_000_000
    completion_start = span.attributes.get("langfuse.observation.completion_start_time")
    return {
        "trace_id": span.trace_id,
        "trace_hash": _trace_hash(span.trace_id),
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "start_ms": start_ms,
        "end_ms": start_ms if span.end_ns is None else span.end_ns // 1_000_000,
        "completion_start_ms": _completion_start_ms(completion_start),
    }


def _trace_context(span: Span) -> dict[str, Any]:
    attributes, resource = span.attributes, span.origin.resource_attributes
    name = _first_text(attributes, ("gen_ai.tool.name",)) or span.name
    is_root = span.parent_id is None or _is_true(attributes.get("langfuse.internal.is_app_root"))
    own_trace_name = name if is_root else None
    return {
        "name": name,
        "is_root": is_root,
        "trace_name": _first_text(attributes, ("langfuse.trace.name",)) or own_trace_name,
        "version": _first_text(attributes, ("langfuse.version",))
        or _first_text(resource, ("langfuse.version", "service.version")),
        "release": _first_text(attributes, ("langfuse.release",))
        or _first_text(resource, ("langfuse.release",)),
        "environment": _environment(attributes, resource),
        "user_id": _first_text(attributes, ("langfuse.user.id", "user.id")),
        "session_id": _first_text(
            attributes, ("langfuse.session.id", "session.id", "gen_ai.conversation.id")
        ),
        "tags": compact(_tags(attributes)),
        "is_public": _is_true(attributes.get("langfuse.trace.public")),
    }


def _consumption(attributes: Mapping[str, Any]) -> dict[str, Any]:
    if attributes.get("gen_ai.operation.name") == "invoke_agent":
        # Such a span sums up the calls below it; counting it would count them twice.
        attributes = {}
    model_name = _first_text(attributes, _MODEL_KEYS)
    parameters = _model_parameters(attributes)
    consumption = read_consumption(attributes, model_name, parameters)
    model, tier = consumption.model, consumption.tier
    price_texts: Mapping[str, str] = model.price_texts if model else {}
    return {
        "model": model_name,
        "model_id": model.model_id if model else "",
        "pricing_tier_id": tier.tier_id if tier else None,
        "pricing_tier_name": tier.name if tier else None,
        "input_price": price_texts.get("input"),
        "output_price": price_texts.get("output"),
        "total_price": price_texts.get("total"),
        "model_parameters": compact(parameters),
        "usage_details": compact(consumption.usage),
        "input_usage": consumption.tokens_of("input"),
        "output_usage": consumption.tokens_of("output"),
        "total_usage": consumption.usage.get("total", 0),
        "cost_details": compact(consumption.cost),
        "input_cost": consumption.cost_of("input"),
        "output_cost": consumption.cost_of("output"),
        "total_cost": consumption.cost.get("total"),
    }


def _prompt(attributes: Mapping[str, Any], *, is_generation: bool) -> dict[str, Any]:
    if not is_generation:
        return {"prompt_name": "", "prompt_version": None}
    given = attributes.get("langfuse.observation.prompt.version")
    number = parse_or_none(given) if isinstance(given, str) else given
    is_version = (
        isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MAX_PROMPT_VERSION
    )
    return {
        "prompt_name": _first_text(attributes, ("langfuse.observation.prompt.name",)),
        "prompt_version": number if is_version else None,
    }


def valid_environment(name: str) -> str:
    """Return ``name`` when it can be the name of an environment, else ``default``."""
    return name if _ENVIRONMENT.fullmatch(name) else "default"


def _type(attributes: Mapping[str, Any]) -> str:
    by_name = _TYPES_BY_LANGFUSE_NAME.get(str(attributes.get("langfuse.observation.type")))
    if by_name:
        return by_name
    kind = attributes.get("openinference.span.kind")
    if kind is not None:
        return _TYPES_BY_OPENINFERENCE_KIND.get(str(kind).upper(), "SPAN")
    by_operation = _TYPES_BY_OPERATION.get(str(attributes.get("gen_ai.operation.name")))
    if by_operation:
        return by_operation
    return "GENERATION" if _first_text(attributes, _MODEL_KEYS) else "SPAN"


def _level(span: Span) -> str:
    given = span.attributes.get("langfuse.observation.level")
    if given in LEVELS:
        return str(given)
    return "ERROR" if span.status_code == _STATUS_ERROR else "DEFAULT"


def _environment(attributes: Mapping[str, Any], resource: Mapping[str, Any]) -> str:
    given = _first_text(attributes, ("langfuse.environment",)) or _first_text(
        resource, ("langfuse.environment", "deployment.environment.name", "deployment.environment")
    )
    return valid_environment(given)


def _model_parameters(attributes: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("langfuse.observation.model.parameters", "llm.invocation_parameters"):
        parsed = parse_or_none(attributes.get(key))
        if isinstance(parsed, dict):
            return {
                name: compact(value) if isinstance(value, (list, dict)) else value
                for name, value in parsed.items()
            }
    prefix = "gen_ai.request."
    return {
        key[len(prefix) :]: compact(value) if isinstance(value, (list, dict)) else value
        for key, value in attributes.items()
        if key.startswith(prefix) and key != "gen_ai.request.model"
    }


def _tags(attributes: Mapping[str, Any]) -> list[str]:
    given = next((attributes[key] for key in _TAG_KEYS if key in attributes), None)
    if isinstance(given, str):
        parsed = parse_or_none(given)
        given = parsed if isinstance(parsed, list) else [part.strip() for part in given.split(",")]
    if not isinstance(given, list):
        return []
    return [tag if isinstance(tag, str) else compact(tag) for tag in given if tag not in ("", None)]


def _completion_start_ms(given: object) -> int | None:
    if not isinstance(given, str):
        return None
    parsed = parse_or_none(given)
    try:
        return iso_to_ms(parsed if isinstance(parsed, str) else given)
    except ValueError:
        return None


def _first_text(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            return value if isinstance(value, str) else compact(value)
    return ""


def _is_true(value: object) -> bool:
    return value is True or value == "true"


@lru_cache(maxsize=1024)
def _trace_hash(trace_id: str) -> int:
    return xxhash32(trace_id.encode())

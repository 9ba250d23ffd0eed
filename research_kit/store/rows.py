"""One database row per observation, made from a span.

Owns every rule by which a span's attributes become an observation's fields; the parts with rules of their
own are `content`, `metadata` and `usage`. Invariant: a row depends on its span alone, so the spans of a
trace may arrive in any order and any number of requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from research_kit.counting import Facts
from research_kit.store.content import read_content
from research_kit.store.jsontext import compact, parse_or_none
from research_kit.store.metadata import read_metadata
from research_kit.store.observation_row import LEVELS, OBSERVATION_TYPES, ObservationRow
from research_kit.store.spans import Origin, Span
from research_kit.store.times import iso_to_ms
from research_kit.store.usage import read_consumption
from research_kit.store.xxhash32 import xxhash32

__all__ = ["Figures", "make_row", "read_figures", "valid_environment"]

_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
_STATUS_ERROR = 2
_MAX_PROMPT_VERSION = 2**31 - 1
_MAX_DIGITS = 30
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
_VERCEL_TYPES = {
    "ai.generateText.doGenerate": "GENERATION",
    "ai.streamText.doStream": "GENERATION",
    "ai.generateObject.doGenerate": "GENERATION",
    "ai.streamObject.doStream": "GENERATION",
    "ai.embedMany.doEmbed": "EMBEDDING",
    "ai.embed.doEmbed": "EMBEDDING",
    "ai.toolCall": "TOOL",
}
_LIVEKIT_SCOPE = "livekit-agents"
_LIVEKIT_TYPES = {"agent_turn": "AGENT", "start_agent_activity": "AGENT", "function_tool": "TOOL"}


class _Keys(tuple[str, ...]):
    """Where a field can be, in the order of precedence."""

    def __init__(self, _: Iterable[str]) -> None:
        self.names = frozenset(self)


_MODEL_KEYS = _Keys(
    (
        "langfuse.observation.model.name",
        "gen_ai.response.model",
        "ai.model.id",
        "gen_ai.request.model",
        "llm.response.model",
        "llm.model_name",
        "model",
    )
)
_TOOL_KEYS = _Keys(("gen_ai.tool.name", "gen_ai.tool.call.id"))
# Not every name of a model makes a generation.
_GENERATION_KEYS = _Keys(key for key in _MODEL_KEYS if key not in ("ai.model.id", "llm.response.model"))


def _keys(field: str, *plain: str, last: tuple[str, ...]) -> _Keys:
    """Return where a field of the trace can be."""
    metadata = [f"langfuse.{part}.metadata.langfuse_{field}" for part in ("observation", "trace")]
    return _Keys((*plain, *metadata, *last))


# Beginnings of all attributes that tell of models, parameters, tokens or cost; most spans have none.
_CONSUMING = (
    *("gen_ai.", "llm.", "ai.model.id", "model"),
    *(f"langfuse.observation.{name}" for name in ("model.", "usage_details", "cost_details")),
)
_USER_KEYS = _keys("user_id", "langfuse.user.id", "user.id", last=("ai.telemetry.metadata.userId",))
_SESSION_KEYS = _keys(
    "session_id",
    *("langfuse.session.id", "session.id", "gen_ai.conversation.id"),
    last=("ai.telemetry.metadata.sessionId",),
)
_TAG_KEYS = _keys(
    "tags", "langfuse.trace.tags", "langfuse.tags", last=("ai.telemetry.metadata.tags", "tag.tags")
)
_ENVIRONMENT_KEYS = _Keys(("langfuse.environment", "deployment.environment.name", "deployment.environment"))
_STATUS_MESSAGE = "langfuse.observation.status_message"
_GENERATION_ONLY = tuple(
    f"langfuse.observation.{name}"
    for name in ("model.", "cost_details", "usage_details", "completion_start_time", "prompt.")
)
_SUMMARIES = ("invoke_agent", "agent_step")


def make_row(span: Span, *, now_ms: int) -> ObservationRow:
    """Make the row of one span.

    Args:
        span: The span as it came in.
        now_ms: The time of arrival.
    """
    attributes = span.attributes
    observation_type = _type(span)
    content = read_content(span)
    metadata = read_metadata(span)
    return ObservationRow(
        **_identity(span, now_ms),
        **_trace_context(span),
        **_consumption(attributes),
        **_prompt(attributes, is_generation=observation_type == "GENERATION"),
        type=observation_type,
        level=_level(span),
        status_message=_plain_text(attributes.get(_STATUS_MESSAGE, span.status_message)),
        created_ms=now_ms,
        metadata=metadata.parsed,
        metadata_short=metadata.short,
        metadata_stored=metadata.stored,
        input=content.input,
        output=content.output,
    )


class Figures(NamedTuple):
    """What the row of a span says about what it was and used.

    Attributes:
        facts: As far as counting looks at it.
        model: The model; empty when unknown.
        status_message: What went wrong, or else is worth telling.
        usage: Tokens by kind, with their total; empty when unknown.
        cost: US dollars by kind, with their total; empty when unknown.
    """

    facts: Facts
    model: str
    status_message: str
    usage: Mapping[str, int]
    cost: Mapping[str, float]


def read_figures(span: Span) -> Figures:
    """Read of a span what `make_row` would keep of it, without its texts."""
    consumed = read_consumption(*_consuming(span.attributes))
    return Figures(
        facts=Facts(
            _type(span),
            _name(span),
            consumed.cost.get("total"),
            consumed.tokens_of("input") if consumed.usage else None,
            consumed.tokens_of("output") if consumed.usage else None,
            consumed.usage.get("total"),
            _level(span) == "ERROR",
        ),
        model=_first_text(span.attributes, _MODEL_KEYS),
        status_message=_plain_text(span.attributes.get(_STATUS_MESSAGE, span.status_message)),
        usage=consumed.usage,
        cost=consumed.cost,
    )


def _identity(span: Span, now_ms: int) -> dict[str, Any]:
    # One time stands in for the other; without either it is the time of arrival.
    begun, ended = (None if ns is None else ns // 1_000_000 for ns in (span.start_ns, span.end_ns))
    start_ms = next((known for known in (begun, ended) if known is not None), now_ms)
    completion_start = span.attributes.get("langfuse.observation.completion_start_time")
    return {
        "trace_id": span.trace_id,
        "trace_hash": _trace_hash(span.trace_id),
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "start_ms": start_ms,
        "end_ms": start_ms if ended is None else ended,
        "completion_start_ms": _completion_start_ms(completion_start),
    }


def _trace_context(span: Span) -> dict[str, Any]:
    attributes, resource = span.attributes, span.origin.resource_attributes
    name = _name(span)
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
        "environment": _environment(span),
        "user_id": _first_text(attributes, _USER_KEYS),
        "session_id": _first_text(attributes, _SESSION_KEYS),
        "tags": compact(_tags(attributes)),
        "is_public": _is_true(attributes.get("langfuse.trace.public", attributes.get("langfuse.public"))),
    }


def _consumption(attributes: Mapping[str, Any]) -> dict[str, Any]:
    if not any(key.startswith(_CONSUMING) for key in attributes):
        return _nothing_consumed()
    return _read_consumption(attributes)


@cache
def _nothing_consumed() -> dict[str, Any]:
    return _read_consumption({})


def _consuming(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, dict[str, Any]]:
    """Return the attributes that tell tokens and cost, the model that they belong to, and its parameters."""
    parameters = _model_parameters(attributes)
    if attributes.get("gen_ai.operation.name") in _SUMMARIES:
        # Such a span sums up the calls below it; counting it would count them twice.
        attributes = {}
    return attributes, _first_text(attributes, _MODEL_KEYS), parameters


def _read_consumption(attributes: Mapping[str, Any]) -> dict[str, Any]:
    given, model_name, parameters = _consuming(attributes)
    consumption = read_consumption(given, model_name, parameters)
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
    name = _first_text(attributes, ("langfuse.observation.prompt.name", "langfuse.prompt.name"))
    given = attributes.get("langfuse.observation.prompt.version", attributes.get("langfuse.prompt.version"))
    return {"prompt_name": name, "prompt_version": _whole_number(given)}


def _whole_number(given: object) -> int | None:
    if isinstance(given, str):
        digits = given.strip()
        given = (
            int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= _MAX_DIGITS else None
        )
    if (
        isinstance(given, bool)
        or not isinstance(given, (int, float))
        or not 0 <= given <= _MAX_PROMPT_VERSION
    ):
        return None
    return int(given) if given == int(given) else None


def valid_environment(name: str) -> str:
    """Return ``name`` when it can be the name of an environment, else ``default``."""
    return name if _ENVIRONMENT.fullmatch(name) else "default"


def _type(span: Span) -> str:
    attributes = span.attributes
    operations = [attributes.get(key) for key in ("operation.name", "ai.operationId")]
    return (
        ("GENERATION" if _is_unmarked_generation(span) else None)
        or _TYPES_BY_LANGFUSE_NAME.get(str(attributes.get("langfuse.observation.type")))
        or _TYPES_BY_OPENINFERENCE_KIND.get(str(attributes.get("openinference.span.kind")))
        or _TYPES_BY_OPERATION.get(str(attributes.get("gen_ai.operation.name")))
        or next((_vercel_type(str(name)) for name in operations if name), None)
        or ("TOOL" if _first_text(attributes, _TOOL_KEYS) else None)
        or (_LIVEKIT_TYPES.get(span.name) if span.origin.scope_name == _LIVEKIT_SCOPE else None)
        or ("GENERATION" if _first_text(attributes, _GENERATION_KEYS) else None)
        or "SPAN"
    )


def _vercel_type(operation: str) -> str | None:
    found = (kind for name, kind in _VERCEL_TYPES.items() if operation.startswith(name))
    return next(found, None)


def _is_unmarked_generation(span: Span) -> bool:
    """Whether an early SDK called a generation a span: up to version 3.3 it did."""
    origin = span.origin
    if span.attributes.get("langfuse.observation.type") != "span" or origin.scope_name != "langfuse-sdk":
        return False
    if origin.resource_attributes.get("telemetry.sdk.language") != "python":
        return False
    version = re.match(r"(\d{1,9})\.(\d{1,9})", origin.scope_version, re.ASCII)
    is_early = version is None or (int(version[1]), int(version[2])) <= (3, 3)
    return is_early and any(key.startswith(_GENERATION_ONLY) for key in span.attributes)


def _name(span: Span) -> str:
    attributes = span.attributes
    name = _first_text(attributes, ("gen_ai.tool.name", "logfire.msg", "ai.toolCall.name"))
    operation = _first_text(attributes, ("ai.operationId",))
    if name or not operation:
        return name or span.name
    function = _first_text(attributes, ("ai.telemetry.functionId",))
    return f"{function}:{operation}" if function else operation


def _level(span: Span) -> str:
    given = span.attributes.get("langfuse.observation.level")
    if given in LEVELS:
        return str(given)
    return "ERROR" if span.status_code == _STATUS_ERROR else "DEFAULT"


def _environment(span: Span) -> str:
    attributes = span.attributes
    if _ENVIRONMENT_KEYS.names.isdisjoint(attributes):
        return _environment_of(span.origin)
    places = (attributes, span.origin.resource_attributes)
    given = (_first_text(place, (key,)) for key in _ENVIRONMENT_KEYS for place in places)
    return valid_environment(next(filter(None, given), ""))


@lru_cache(maxsize=64)
def _environment_of(origin: Origin) -> str:
    return valid_environment(_first_text(origin.resource_attributes, _ENVIRONMENT_KEYS))


def _model_parameters(attributes: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("langfuse.observation.model.parameters", "llm.invocation_parameters", "model_config"):
        parsed = parse_or_none(attributes.get(key))
        if isinstance(parsed, dict):
            return {name: _parameter(value) for name, value in parsed.items()}
    return {
        key[len(prefix) :]: _parameter(value)
        for prefix in ("gen_ai.request.", "llm.invocation_parameters.")
        for key, value in attributes.items()
        if key.startswith(prefix) and key != f"{prefix}model"
    }


def _parameter(value: object) -> Any:
    """Return a parameter as it is kept: what is neither text nor a number becomes text."""
    is_plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return value if is_plain else compact(value)


def _tags(attributes: Mapping[str, Any]) -> list[str]:
    if _TAG_KEYS.names.isdisjoint(attributes):
        return []
    given = next((attributes[key] for key in _TAG_KEYS if attributes.get(key)), None)
    if isinstance(given, str):
        parsed = parse_or_none(given) if given.lstrip().startswith("[") else None
        given = parsed if isinstance(parsed, list) else _divided(given)
    return [_plain_text(tag) for tag in given] if isinstance(given, list) else []


def _divided(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if "," in text else [text]


def _completion_start_ms(given: object) -> int | None:
    if not isinstance(given, str):
        return None
    parsed = parse_or_none(given)
    try:
        return iso_to_ms(parsed if isinstance(parsed, str) else given)
    except (ValueError, OverflowError):
        return None


def _first_text(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    if isinstance(keys, _Keys) and keys.names.isdisjoint(attributes):
        return ""
    for key in keys:
        value = attributes.get(key)
        if value or isinstance(value, list):
            return _plain_text(value)
    return ""


def _plain_text(value: object) -> str:
    return value if isinstance(value, str) else compact(value)


def _is_true(value: object) -> bool:
    return value is True or value == "true"


@lru_cache(maxsize=1024)
def _trace_hash(trace_id: str) -> int:
    return xxhash32(trace_id.encode())

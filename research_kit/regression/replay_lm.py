"""Language model calls of DSPy, answered from a cassette or recorded into it.

Owns the wrappers around the public calls of DSPy's language model classes, and how a recorded answer becomes
an answer of DSPy again: through a custom engine, so that history, usage, callbacks and streams are DSPy's
own. A call that is recorded is not changed. Invariant: a replayed call opens no connection.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook, wrap_function_wrapper

from research_kit.regression.player import Found, Player, current_player

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response, StreamEvent

__all__ = ["watch_dspy"]

# What says where the provider is and how long to wait, not what is asked.
_CONNECTION_KEYS = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "azure_ad_token_provider",
        "base_url",
        "cache",
        "custom_llm_provider",
        "extra_headers",
        "extra_query",
        "headers",
        "organization",
        "project",
        "timeout",
    }
)
_TOKEN_KEYS = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "total_tokens": "total_tokens",
}
_is_inside: ContextVar[bool] = ContextVar("research_kit_replay_is_inside", default=False)
_is_watching = False
_replayed_class: Any = None


def watch_dspy() -> None:
    """Put the wrappers in place as soon as DSPy is imported; repeated calls change nothing."""
    global _is_watching
    if not _is_watching:
        _is_watching = True
        register_post_import_hook(_wrap_dspy, "dspy")
        # It starts the model's server before it calls the model, which a replayed call must not.
        register_post_import_hook(_wrap_local_lm, "research_kit.agent.local_lm")


def _wrap_dspy(dspy: ModuleType) -> None:
    _wrap_class(dspy.BaseLM)


def _wrap_local_lm(module: ModuleType) -> None:
    _wrap_class(module.LocalLM)
    wrap_function_wrapper(module.LocalLM, "start", _start)


def _start(wrapped: Callable[..., None], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    player = current_player()
    if player is None or player.record != "none":
        wrapped(*args, **kwargs)


def _wrap_class(cls: type[Any]) -> None:
    wrap_function_wrapper(cls, "__call__", _call)
    wrap_function_wrapper(cls, "acall", _acall)


def _call(wrapped: Callable[..., Any], lm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    player = current_player()
    if player is None or _is_inside.get():
        return wrapped(*args, **kwargs)
    asked = _Asked.of(lm, args, kwargs)
    found = player.find("lm", asked.request, is_cached=asked.is_cached)
    with _inside():
        if found is not None:
            return _twin(lm, found, player)(*args, **asked.kwargs(kwargs))
        started = time.monotonic()
        outputs = wrapped(*args, **asked.kwargs(kwargs))
        player.keep("lm", asked.request, asked.answer(outputs, time.monotonic() - started))
        return outputs


def _acall(
    wrapped: Callable[..., Awaitable[Any]], lm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    player = current_player()
    if player is None or _is_inside.get():
        return wrapped(*args, **kwargs)

    async def answer() -> Any:
        asked = _Asked.of(lm, args, kwargs)
        found = player.find("lm", asked.request, is_cached=asked.is_cached)
        with _inside():
            if found is not None:
                return await _twin(lm, found, player).acall(*args, **asked.kwargs(kwargs))
            started = time.monotonic()
            outputs = await wrapped(*args, **asked.kwargs(kwargs))
            player.keep("lm", asked.request, asked.answer(outputs, time.monotonic() - started))
            return outputs

    return answer()


@contextmanager
def _inside() -> Iterator[None]:
    """Let the call that a call makes of its own class pass; a tool called meanwhile is another context."""
    token = _is_inside.set(True)
    try:
        yield
    finally:
        _is_inside.reset(token)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One call as JSON values, and where DSPy keeps what became of it."""

    lm: Any
    subject: Any
    request: dict[str, Any]
    is_typed: bool
    is_managed: bool
    is_cached: bool

    @classmethod
    def of(cls, lm: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Asked:
        import dspy

        prompt = args[0] if args else kwargs.get("prompt")
        typed = prompt if isinstance(prompt, dspy.lm15.Request) else kwargs.get("request")
        options = {
            **lm.kwargs,
            **{
                name: value for name, value in kwargs.items() if name not in ("prompt", "messages", "request")
            },
        }
        parameters = {
            name: _as_json(value)
            for name, value in sorted(options.items())
            if value is not None and name not in _CONNECTION_KEYS
        }
        messages = kwargs.get("messages")
        if typed is not None:
            request = {"model": lm.model, "request": _as_json(typed)}
        elif messages is None:
            request = {"model": lm.model, "prompt": _as_json(prompt), "parameters": parameters}
        else:
            request = {"model": lm.model, "messages": _as_json(messages), "parameters": parameters}
        is_managed = isinstance(lm, dspy.LM)
        return cls(
            lm=lm,
            subject=prompt if messages is None else messages,
            request=request,
            is_typed=typed is not None,
            is_managed=is_managed,
            is_cached=is_managed and bool(kwargs.get("cache", lm.cache)),
        )

    def kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the call that is made: past DSPy's cache, which differs by machine."""
        return {**kwargs, "cache": False} if self.is_managed else dict(kwargs)

    def answer(self, outputs: Any, latency_s: float) -> dict[str, Any]:
        """Return what is recorded of the answer."""
        entry = self._history_entry()
        kept: dict[str, Any] = {"outputs": [_output(outputs)] if self.is_typed else _as_json(outputs)}
        kept["usage"] = _as_json(entry.get("usage") or {})
        kept["cost_usd"] = entry.get("cost")
        kept["response_model"] = entry.get("response_model") or self.lm.model
        kept["latency_s"] = round(latency_s, 3)
        return kept

    def _history_entry(self) -> Mapping[str, Any]:
        key = "request" if self.is_typed else "prompt" if self.request.get("messages") is None else "messages"
        history: list[Mapping[str, Any]] = list(self.lm.history)
        return next((entry for entry in reversed(history) if entry.get(key) is self.subject), {})


def _twin(lm: Any, found: Found, player: Player) -> Any:
    """Return a model that answers as ``lm`` did: same name, parameters, callbacks and history."""
    engine = _Engine(lm.model, found, player)
    kwargs = {name: value for name, value in lm.kwargs.items() if name not in _CONNECTION_KEYS}
    # The original has accepted its parameters; the limits of a class of models are not asked about again.
    twin = _class_of_twins()(
        lm.model,
        model_type=lm.model_type,
        cache=False,
        callbacks=lm.callbacks,
        num_retries=0,
        engine=engine,
        async_engine=_AsyncEngine(engine),
    )
    twin.kwargs = kwargs
    twin.history = lm.history
    twin.found = found
    return twin


def _class_of_twins() -> Any:
    """Return the class, which can only be made where DSPy is imported."""
    global _replayed_class
    if _replayed_class is None:
        import dspy

        class ReplayedLM(dspy.LM):  # type: ignore[misc]  # DSPy has no type information
            """A language model whose answers come from a cassette."""

            found: Found

            def update_history(self, entry: dict[str, Any]) -> None:
                """Put usage and cost of the recorded call into DSPy's history."""
                answer = self.found.answer
                entry["cost"], entry["response_model"] = answer["cost_usd"], answer["response_model"]
                entry["usage"] = {} if self.found.is_repeated else dict(answer["usage"])
                if self.found.is_repeated:
                    usage = _usage(answer["usage"] or {"prompt_tokens": 0, "completion_tokens": 0})
                    entry["response"] = dataclasses.replace(_first(entry["response"]), usage=usage)
                super().update_history(entry)

        _replayed_class = ReplayedLM
    return _replayed_class


class _Engine:
    """DSPy's engine interface over one recorded answer; each of its outputs is given once."""

    def __init__(self, model: str, found: Found, player: Player) -> None:
        self.model = str(found.answer["response_model"] or model)
        self.latency_s = float(found.answer.get("latency_s") or 0) if player.replays_latency else 0.0
        self._left = list(_responses(self.model, found))

    def next_response(self) -> Response:
        # More candidates than were recorded cannot be asked for: their number is part of the key.
        return self._left.pop(0)

    def complete(self, request: Request) -> Response:
        time.sleep(self.latency_s)
        return self.next_response()

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        events = list(_events(self.next_response()))
        for event in events:
            time.sleep(self.latency_s / len(events))
            yield event

    def close(self) -> None:
        """Nothing is open."""


class _AsyncEngine:
    """The same without blocking the loop."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    async def complete(self, request: Request) -> Response:
        await asyncio.sleep(self._engine.latency_s)
        return self._engine.next_response()

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        events = list(_events(self._engine.next_response()))
        for event in events:
            await asyncio.sleep(self._engine.latency_s / len(events))
            yield event

    async def aclose(self) -> None:
        """Nothing is open."""


def _responses(model: str, found: Found) -> Iterator[Response]:
    from dspy.lm15 import Message, Response, Usage

    answer = found.answer
    # A repeated answer costs nothing; the tokens of several candidates are known in sum only.
    usage = Usage() if found.is_repeated else _usage(answer["usage"])
    for output in answer["outputs"]:
        parts = list(_parts(output if isinstance(output, dict) else {"text": output}))
        finish = "tool_call" if any(part.type == "tool_call" for part in parts) else "stop"
        message = Message.assistant(parts)
        yield Response(id=None, model=model, message=message, finish_reason=finish, usage=usage)
        usage = Usage()


def _parts(output: Mapping[str, Any]) -> Iterator[Any]:
    from dspy.lm15 import CitationPart, TextPart, ThinkingPart, ToolCallPart

    if output.get("reasoning_content"):
        yield ThinkingPart(output["reasoning_content"])
    calls = output.get("tool_calls") or ()
    if output.get("text") is not None or not calls:
        yield TextPart(output.get("text") or "")
    for number, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
        yield ToolCallPart(call.get("id") or f"call_{number}", call["function"]["name"], given or {})
    for citation in output.get("citations") or ():
        yield CitationPart(**{name: citation.get(name) for name in ("text", "title", "url")})


def _usage(usage: Mapping[str, Any]) -> Any:
    from dspy.lm15 import Usage

    counts = {name: usage.get(key) for key, name in _TOKEN_KEYS.items()}
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        **counts,
        cache_read_tokens=(prompt or {}).get("cached_tokens"),
        cache_write_tokens=(prompt or {}).get("cache_creation_tokens"),
        reasoning_tokens=(completion or {}).get("reasoning_tokens"),
    )


def _events(response: Response) -> Iterator[StreamEvent]:
    """Return the response as a stream that brings its text word by word, as models do."""
    from dspy.lm15 import StreamDeltaEvent, TextDelta, response_to_events

    for event in response_to_events(response):
        delta = getattr(event, "delta", None)
        if not isinstance(delta, TextDelta):
            yield event
            continue
        for word in _words(delta.text):
            yield StreamDeltaEvent(delta=TextDelta(text=word, part_index=delta.part_index))


def _words(text: str) -> list[str]:
    pieces = text.split(" ")
    return [f"{piece} " for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def _first(response: Any) -> Any:
    return response[0] if isinstance(response, list | tuple) else response


def _as_json(value: Any) -> Any:
    """Return ``value`` as JSON values whose text is the same in every process."""
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        return value.model_json_schema()
    if hasattr(value, "model_dump"):
        return _as_json(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_as_json(item) for item in value), key=repr)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        # What is not given is left out: a release that knows more fields asks the same.
        return {name: _as_json(item) for name, item in given.items() if item not in (None, (), {}, [])}
    return repr(value)


def _output(response: Response) -> dict[str, Any]:
    """Return the answer to a typed request in the form in which DSPy gives all others."""
    parts = [_as_json(part) for part in response.message.parts]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    thoughts = [part["text"] for part in parts if part["type"] == "thinking" and part.get("text")]
    calls = [
        {"id": part["id"], "function": {"name": part["name"], "arguments": part.get("input", {})}}
        for part in parts
        if part["type"] == "tool_call"
    ]
    output: dict[str, Any] = {"text": "".join(texts) if texts else None}
    if thoughts:
        output["reasoning_content"] = "".join(thoughts)
    if calls:
        output["tool_calls"] = calls
    return output

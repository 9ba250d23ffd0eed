"""Calls of MCP clients, answered from a cassette or recorded into it.

Owns the wrappers around the public methods of `mcp.Client`. Invariant: while answers are only replayed no
server is connected to or started, apart from the built-in one that reads this kernel's own variables: what it
says is a result of the notebook.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook, wrap_function_wrapper

from research_kit.regression.player import Player, current_player

__all__ = ["watch_mcp"]

_SCOPE = "mcp-python-sdk"
_KERNEL_SERVER = "kernel"
_SERVER_ATTRIBUTE = "research_kit_server"
_is_watching = False

# Method of the client, method of the protocol, class of the result.
_METHODS = {
    "call_tool": ("tools/call", "CallToolResult"),
    "list_tools": ("tools/list", "ListToolsResult"),
    "list_resources": ("resources/list", "ListResourcesResult"),
    "list_resource_templates": ("resources/templates/list", "ListResourceTemplatesResult"),
    "read_resource": ("resources/read", "ReadResourceResult"),
    "list_prompts": ("prompts/list", "ListPromptsResult"),
    "get_prompt": ("prompts/get", "GetPromptResult"),
}
_LIST = "tools/list"
_PARAMETERS = ("name", "uri", "arguments", "cursor")


def watch_mcp() -> None:
    """Put the wrappers in place as soon as MCP is imported; repeated calls change nothing."""
    global _is_watching
    if not _is_watching:
        _is_watching = True
        register_post_import_hook(_wrap_mcp, "mcp.client.client")
        register_post_import_hook(_wrap_stdio, "mcp.client.stdio")
        register_post_import_hook(_wrap_http, "mcp.client.streamable_http")


def _wrap_mcp(module: ModuleType) -> None:
    wrap_function_wrapper(module.Client, "__aenter__", _enter)
    for name, (method, _) in _METHODS.items():
        wrap_function_wrapper(module.Client, name, _answerer(method))


def _wrap_stdio(module: ModuleType) -> None:
    wrap_function_wrapper(module, "stdio_client", _named_transport)


def _wrap_http(module: ModuleType) -> None:
    wrap_function_wrapper(module, "streamable_http_client", _named_transport)


def _named_transport(
    wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Note on a transport which server it leads to: the client that gets it cannot tell."""
    transport = wrapped(*args, **kwargs)
    target = args[0] if args else kwargs.get("server", kwargs.get("url"))
    setattr(transport, _SERVER_ATTRIBUTE, _server_name(target))
    return transport


def _server_name(target: Any) -> str:
    """Return what a server is called in a cassette: the same on every machine, and without its keys."""
    if isinstance(target, str):
        return target.partition("?")[0]
    command = getattr(target, "command", None)
    if command is not None:
        # The interpreter's path and version differ between machines, the script or module does not.
        words = [PurePath(word).name if "/" in word else word for word in getattr(target, "args", None) or ()]
        return " ".join([PurePath(command).name.rstrip("0123456789."), *words])
    return str(getattr(target, _SERVER_ATTRIBUTE, None) or getattr(target, "name", None) or "")


def _player_for(client: Any) -> Player | None:
    player = current_player()
    is_own = _is_in_memory(client) and _server_name(client.server) == _KERNEL_SERVER
    return None if player is None or is_own else player


def _is_in_memory(client: Any) -> bool:
    return type(client.server).__module__.startswith("mcp.server")


async def _enter(
    wrapped: Callable[..., Awaitable[Any]], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    player = _player_for(client)
    if player is not None and player.record == "none":
        return client  # leaving it closes what is open, which is nothing
    return await wrapped(*args, **kwargs)


def _answerer(method: str) -> Callable[..., Any]:
    async def answer(
        wrapped: Callable[..., Awaitable[Any]], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        player = _player_for(client)
        if player is None:
            return await wrapped(*args, **kwargs)
        request = _request(method, client, args, kwargs)
        # A list is asked for before each call, and recorded once as long as it says the same. While calls
        # reach the servers, what they may do is theirs to say, and not a file's of the project.
        found = player.find("mcp", request, repeats_last=method == _LIST and player.record == "none")
        if found is None or (method == _LIST and player.record != "none"):
            return await _record(player, method, request, wrapped(*args, **kwargs))
        with _observed(method, request):
            await asyncio.sleep(found.answer.get("latency_s", 0) if player.replays_latency else 0)
            return _result(method, found.answer)

    return answer


async def _record(player: Player, method: str, request: Mapping[str, Any], call: Awaitable[Any]) -> Any:
    from mcp import MCPError

    started = time.monotonic()
    try:
        result = await call
    except MCPError as error:
        answer: dict[str, Any] = {"error": {"code": error.code, "message": error.message}}
        player.keep("mcp", request, answer)
        raise
    content = result.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta"})
    latency_s = round(time.monotonic() - started, 3)
    if method != _LIST or not player.was_last("mcp", request, content):
        player.keep("mcp", request, {"result": content, "latency_s": latency_s})
    return result


def _request(method: str, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    first = {"resources/read": "uri"}.get(method, "name")
    given = dict(zip((first, "arguments"), args, strict=False))
    given.update({name: kwargs[name] for name in _PARAMETERS if kwargs.get(name) is not None})
    parameters = to_jsonable_python(given, fallback=str)
    return {"server": _server_name(client.server), "method": method, "parameters": parameters}


def _result(method: str, answer: Mapping[str, Any]) -> Any:
    from mcp import MCPError, types

    if "error" in answer:
        raise MCPError(code=answer["error"]["code"], message=answer["error"]["message"])
    name = next(result for known, result in _METHODS.values() if known == method)
    return getattr(types, name).model_validate(answer["result"])


@contextmanager
def _observed(method: str, request: Mapping[str, Any]) -> Iterator[None]:
    """Make the span that MCP's SDK would make for a call: of the client, or of a server in this process."""
    from opentelemetry.trace import SpanKind, get_tracer

    target = request["parameters"].get("name")
    name = f"MCP send {method}{f' {target}' if target else ''}"
    attributes = {"mcp.method.name": method}
    with get_tracer(_SCOPE).start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
        yield

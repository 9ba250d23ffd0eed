"""MCP tools in the form that DSPy programs call.

Owns the approval rule and the step between synchronous programs and the agent loop; does not open
connections. Invariant: a tool runs without an approval only when its server, as it answers at the time of the
call, is trusted to say that the tool reads only; and an approval is for the tool as it was listed then.

Between the list and the call that follows it on the same connection a server can still become another one:
that it does as it says is what trusting it means.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy

from research_kit.agent.loop import agent_loop
from research_kit.agent.outcomes import ToolImage, ToolOutcome
from research_kit.agent.tools import ApprovalRequired, MayRun, OnProgress, ToolServer
from research_kit.errors import ToolError

if TYPE_CHECKING:
    from mcp.types import Tool

__all__ = ["Approve", "McpTool", "ToolRequest", "ToolText", "aas_dspy_tools", "as_dspy_tools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A call of a tool that may change something, before it is made.

    Attributes:
        server: Name of the tool's server.
        name: Name of the tool, as the program knows it.
        arguments: What it would be called with.
        fingerprint: Hash of what the server says about the tool now; another one is another tool.
        description: What the server says that it does.
        is_destructive: Whether the server says that it may destroy something.
    """

    server: str
    name: str
    arguments: dict[str, Any]
    fingerprint: str = ""
    description: str = ""
    is_destructive: bool = False


Approve = Callable[[ToolRequest], bool]
_MAX_QUESTIONS = 4

_is_awaited: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "research_kit_tool_is_awaited", default=False
)


class ToolText(str):
    """The text of a tool's answer, with the rest of it beside.

    Attributes:
        structured: The structured content; None when the tool gave none.
        images: The pictures of the answer.
    """

    structured: dict[str, Any] | None = None
    images: tuple[ToolImage, ...] = ()


class McpTool(dspy.Tool):
    """A `dspy.Tool` whose call waits for the agent loop, and whose ``acall`` awaits it."""

    async def acall(self, **kwargs: Any) -> Any:
        """Call the tool without blocking any loop."""
        token = _is_awaited.set(True)
        try:
            return await super().acall(**kwargs)
        finally:
            _is_awaited.reset(token)


def as_dspy_tools(
    *servers: ToolServer, approve: Approve | None = None, on_progress: OnProgress | None = None
) -> list[dspy.Tool]:
    """Return the tools of ``servers`` for a DSPy program, synchronous or not.

    Args:
        servers: Where the tools come from. When two servers have a tool of one name, the later
            one is called ``<server>_<tool>``.
        approve: Asked before a tool runs that its server does not call read-only at the time of the call;
            without it such a tool is refused.
        on_progress: Told how far a running call is, in the context of its caller.

    Raises:
        ToolError: When a server cannot be reached.
    """
    return agent_loop().run(aas_dspy_tools(*servers, approve=approve, on_progress=on_progress))


async def aas_dspy_tools(
    *servers: ToolServer, approve: Approve | None = None, on_progress: OnProgress | None = None
) -> list[dspy.Tool]:
    """Do what `as_dspy_tools` does, awaitable on any loop."""
    tools: dict[str, dspy.Tool] = {}
    for server in servers:
        for tool in await server.alist_tools():
            name = tool.name if tool.name not in tools else f"{server.name}_{tool.name}"
            tools[name] = _dspy_tool(name, tool, server, approve, on_progress)
    return list(tools.values())


def _dspy_tool(
    name: str, tool: Tool, server: ToolServer, approve: Approve | None, on_progress: OnProgress | None
) -> dspy.Tool:
    async def call(**arguments: Any) -> ToolText:
        outcome = await _guarded_call(server, tool.name, name, arguments, approve, on_progress)
        if outcome.is_error:
            raise ToolError(outcome.text)
        text = ToolText(outcome.text)
        text.structured = outcome.structured
        text.images = outcome.images
        return text

    def func(**arguments: Any) -> ToolText | Coroutine[Any, Any, ToolText]:
        if _is_awaited.get():
            # Whatever the tool itself calls synchronously must wait again.
            _is_awaited.set(False)
            return call(**arguments)
        return agent_loop().run(call(**arguments))

    properties = {
        key: _resolved(value, tool.input_schema.get("$defs", {}))
        for key, value in tool.input_schema.get("properties", {}).items()
    }
    return McpTool(func=func, name=name, desc=tool.description or "", args=properties, arg_types={})


async def _guarded_call(
    server: ToolServer,
    tool_name: str,
    shown_name: str,
    arguments: dict[str, Any],
    approve: Approve | None,
    on_progress: OnProgress | None,
) -> ToolOutcome:
    """Call the tool as it is listed now, asking first when it has to be; again when it changed meanwhile."""
    told = _in_this_context(on_progress)
    allowed = ""
    for _ in range(_MAX_QUESTIONS):
        may_run = _permit(server, allowed)
        try:
            return await server.acall_tool(tool_name, arguments, on_progress=told, may_run=may_run)
        except ApprovalRequired as required:
            allowed = server.fingerprint(required.tool)
            await _ask(approve, _request(server, shown_name, arguments, required.tool))
    raise ToolError(
        f"The tool {shown_name!r} changed each time after it was allowed, so it was not called. Ask the "
        f"people who run the MCP server {server.name!r} why."
    )


def _permit(server: ToolServer, allowed: str) -> MayRun:
    return lambda tool: server.runs_unasked(tool) or server.fingerprint(tool) == allowed


def _request(server: ToolServer, name: str, arguments: dict[str, Any], tool: Tool) -> ToolRequest:
    hints = tool.annotations
    return ToolRequest(
        server=server.name,
        name=name,
        arguments=arguments,
        fingerprint=server.fingerprint(tool),
        description=tool.description or "",
        is_destructive=hints is not None and hints.destructive_hint is True,
    )


def _in_this_context(on_progress: OnProgress | None) -> OnProgress | None:
    """Return ``on_progress`` such that it knows which call it is about: it is called by another task."""
    if on_progress is None:
        return None
    context = contextvars.copy_context()
    return lambda progress: context.run(on_progress, progress)


async def _ask(approve: Approve | None, request: ToolRequest) -> None:
    if approve is None:
        raise ToolError(
            f"The tool {request.name!r} may change something and nobody can be asked. "
            "Pass approve= to allow it."
        )
    # In a thread: whoever is asked may take as long as they like.
    if not await asyncio.to_thread(approve, request):
        raise ToolError(f"The tool {request.name!r} was not approved.")


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return ``schema`` with its references replaced, because DSPy validates each argument by itself."""
    if isinstance(schema, list):
        return [_resolved(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        name = reference.removeprefix("#/$defs/")
        rest = {key: definition for key, definition in definitions.items() if key != name}
        return _resolved(definitions.get(name, {}), rest)
    return {key: _resolved(value, definitions) for key, value in schema.items()}

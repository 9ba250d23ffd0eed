"""MCP tool servers: connecting, listing, calling.

Owns when a connection is opened, given up and opened again; does not know what the tools do. Invariants: no
request waits longer than its timeout; a call that may have taken effect is never sent a second time; and
whether a guarded call may be made is decided on what the server lists on the connection that carries it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from research_kit.agent.connection import Connection, HttpTarget
from research_kit.agent.loop import agent_loop
from research_kit.agent.outcomes import ToolOutcome, ToolProgress, read_outcome
from research_kit.agent.tool_words import (
    changed_between,
    identity_of,
    refused,
    remedy,
    target_text,
    too_slow,
    unknown_tool,
)
from research_kit.config import load_settings
from research_kit.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from mcp import Client, StdioServerParameters
    from mcp.server.mcpserver import MCPServer
    from mcp.shared.dispatcher import ProgressFnT
    from mcp.types import Tool

__all__ = ["ApprovalRequired", "MayRun", "OnProgress", "ToolServer"]

T = TypeVar("T")
OnProgress = Callable[[ToolProgress], None]
MayRun = Callable[["Tool"], bool]

_MAX_PAGES = 100
_MAX_FILE_NAME = 100


class ToolServer:
    """An MCP server, connected on first use and again after it went away.

    Args:
        name: What this server is called in messages.
        target: An in-memory ``MCPServer``, ``StdioServerParameters`` of a program to start, or the URL of
            a streamable HTTP server (an `HttpTarget` when it wants headers).
        timeout_s: Longest time for connecting, and for each call.
        trust_hints: Whether a tool that the server calls read-only runs without a question. That is only
            the server's word, so say no for one that you do not trust to tell the truth.

    Raises:
        ConfigError: When the timeout or the URL cannot be used.
    """

    def __init__(
        self,
        name: str,
        target: MCPServer[Any] | StdioServerParameters | HttpTarget | str,
        *,
        timeout_s: float = 30.0,
        trust_hints: bool = True,
    ) -> None:
        if timeout_s <= 0:
            raise ConfigError(
                f"timeout_s of the MCP server {name!r} is {timeout_s}; it must be above 0 seconds."
            )
        if isinstance(target, str) and not target.startswith(("http://", "https://")):
            raise ConfigError(
                f"The target of the MCP server {name!r} is {target!r}, which is not a web address. Give a "
                "URL that begins with http:// or https://, or mcp.StdioServerParameters(command=...)."
            )
        self.name = name
        self.target = target
        self.timeout_s = timeout_s
        self.trust_hints = trust_hints
        self._connection: Connection | None = None
        self._when_forgotten: weakref.finalize[..., ToolServer] | None = None
        self._tools: dict[str, Tool] = {}

    def __repr__(self) -> str:
        return f"ToolServer({self.name!r}, {target_text(self.target)})"

    @property
    def log_path(self) -> Path:
        """Where the error output of a started program goes."""
        file_name = re.sub(r"[^A-Za-z0-9_-]", "_", self.name)[:_MAX_FILE_NAME] + ".log"
        return load_settings().cache_dir / "tool-servers" / file_name

    def list_tools(self) -> list[Tool]:
        """Return the server's tools; see `alist_tools`."""
        return agent_loop().run(self._list_tools())

    def call_tool(self, name: str, arguments: dict[str, Any] | None = None) -> ToolOutcome:
        """Call a tool and wait for its answer; see `acall_tool`."""
        return agent_loop().run(self._call_tool(name, arguments or {}))

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        agent_loop().run(self._disconnect())

    async def alist_tools(self) -> list[Tool]:
        """Return the server's tools; may be awaited on any loop.

        Raises:
            ToolError: When the server cannot be reached or does not answer in time.
        """
        return await _on_agent_loop(self._list_tools())

    async def acall_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        may_run: MayRun | None = None,
    ) -> ToolOutcome:
        """Call a tool; may be awaited on any loop. Cancelling the call cancels it on the server.

        Args:
            name: The tool.
            arguments: What it is called with.
            on_progress: Called on the agent loop whenever the server says how far it is.
            may_run: Asked right before each attempt, with the tool as the server lists it then on the
                connection that carries the call; by default every tool may.

        Raises:
            ApprovalRequired: When ``may_run`` says no; nothing was called.
            ToolError: When the server cannot be reached, went away, has no such tool, refused the call or
                took too long. A failure that the tool itself reports is an outcome with ``is_error``.
        """
        return await _on_agent_loop(self._call_tool(name, arguments or {}, on_progress, may_run))

    def runs_unasked(self, tool: Tool) -> bool:
        """Whether ``tool`` may run without a question: its server is trusted to say that it only reads."""
        return self.trust_hints and is_read_only(tool)

    def fingerprint(self, tool: Tool) -> str:
        """Return a hash of where ``tool`` comes from and of all that its server says about it."""
        told = tool.model_dump(mode="json", include={"name", "description", "input_schema", "annotations"})
        where = [self.name, identity_of(self.target)]
        return hashlib.sha256(json.dumps([where, told], sort_keys=True).encode()).hexdigest()

    async def aclose(self) -> None:
        """Close the connection; may be awaited on any loop."""
        await _on_agent_loop(self._disconnect())

    async def _list_tools(self) -> list[Tool]:
        return await self._with_client("list the tools", self._list_on, is_repeatable=lambda: True)

    async def _list_on(self, client: Client) -> list[Tool]:
        tools = await self._answered(_walk_tools(client))
        # Of two tools with one name, the one that has to ask is the one that is decided on.
        ordered = sorted(tools, key=self.runs_unasked, reverse=True)
        self._tools = {tool.name: tool for tool in ordered}
        return tools

    async def _call_tool(
        self,
        name: str,
        arguments: dict[str, Any],
        on_progress: OnProgress | None = None,
        may_run: MayRun | None = None,
    ) -> ToolOutcome:
        _check_arguments(name, arguments)
        attempts: list[Tool] = []

        async def call(client: Client) -> ToolOutcome:
            # A second attempt may meet another release of the server, on which the tool does something else.
            tool = await self._tool_on(client, name, is_fresh=bool(may_run or attempts))
            if may_run is not None and not may_run(tool):
                raise ApprovalRequired(tool)
            if attempts and not self.runs_unasked(tool):
                raise ToolError(changed_between(self.name, name))
            attempts.append(tool)
            progress = None if on_progress is None else _progress_sink(on_progress)
            answer = client.call_tool(
                name, arguments, read_timeout_seconds=self.timeout_s, progress_callback=progress
            )
            return read_outcome(await self._answered(answer))

        return await self._with_client(
            f"call the tool {name!r}",
            call,
            is_repeatable=lambda: not attempts or self.runs_unasked(attempts[-1]),
        )

    async def _tool_on(self, client: Client, name: str, *, is_fresh: bool) -> Tool:
        if is_fresh or name not in self._tools:
            await self._list_on(client)
        if name not in self._tools:
            raise ToolError(unknown_tool(self.name, name, self._tools))
        return self._tools[name]

    async def _answered(self, answer: Awaitable[T]) -> T:
        # One second more than the client's own timeout, which also tells the server to stop.
        return await asyncio.wait_for(answer, self.timeout_s + 1)

    async def _with_client(
        self, action: str, use: Callable[[Client], Awaitable[T]], *, is_repeatable: Callable[[], bool]
    ) -> T:
        """Run ``use``; once more on a new connection if the old one is gone and nothing happens twice."""
        try:
            return await self._attempt(action, use)
        except _ConnectionLost as lost:
            await self._drop(lost.connection)
            if not is_repeatable():
                raise ToolError(
                    f"Cannot {action} of the MCP server {self.name!r}: the connection closed, and it is "
                    f"unknown whether the call took effect. {self._remedy()} The next call connects again."
                ) from lost.__cause__
        try:
            return await self._attempt(action, use)
        except _ConnectionLost as lost:
            await self._drop(lost.connection)
            raise ToolError(
                f"Cannot {action} of the MCP server {self.name!r}: the connection closed twice. "
                f"{self._remedy()}"
            ) from lost.__cause__

    async def _attempt(self, action: str, use: Callable[[Client], Awaitable[T]]) -> T:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        connection = await self._connect()
        try:
            return await use(connection.ready.result())
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise _ConnectionLost(connection) from error
            if error.code == REQUEST_TIMEOUT:
                raise ToolError(too_slow(self.name, action, self.timeout_s)) from error
            raise ToolError(refused(self.name, action, error.message, error.code)) from error
        except TimeoutError as error:
            raise ToolError(too_slow(self.name, action, self.timeout_s)) from error

    async def _connect(self) -> Connection:
        connection = self._connection
        if connection is None or connection.loop is not asyncio.get_running_loop():
            # Also in a forked child, and after the loop was closed: the old connection is not ours to use.
            connection = self._connection = Connection(self.target, log_path=self.log_path)
            # A server that nobody holds any more closes its client, as a file does.
            if self._when_forgotten is not None:
                self._when_forgotten.detach()
            self._when_forgotten = weakref.finalize(self, connection.let_go)
            self._when_forgotten.atexit = False
        done, _ = await asyncio.wait([connection.ready], timeout=self.timeout_s)
        if done and connection.ready.exception() is None:
            return connection
        await self._drop(connection)
        error = connection.ready.exception() if done else None
        cause = _leaf_text(error) if error else f"no answer within {self.timeout_s:g} s"
        raise ToolError(
            f"Cannot connect to the MCP server {self.name!r} ({target_text(self.target)}): {cause}. "
            f"{self._remedy()}"
        ) from error

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._drop(self._connection)

    async def _drop(self, connection: Connection) -> None:
        # Another call may already have opened the next connection, which stays.
        if self._connection is connection:
            self._connection = None
            # The next one may be another release of the server, with other tools.
            self._tools = {}
        if connection.loop is asyncio.get_running_loop():
            await connection.aclose()

    def _remedy(self) -> str:
        return remedy(self.target, self.log_path)


class ApprovalRequired(Exception):
    """A guarded call was not made.

    Attributes:
        tool: The tool as its server lists it now.
    """

    def __init__(self, tool: Tool) -> None:
        super().__init__(f"the tool {tool.name!r} has to be allowed first")
        self.tool = tool


class _ConnectionLost(Exception):
    """The connection closed under a call; the cause says how."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("the connection closed")
        self.connection = connection


def is_read_only(tool: Tool) -> bool:
    """Return True when the server says that ``tool`` changes nothing, and does not contradict itself."""
    hints = tool.annotations
    return hints is not None and hints.read_only_hint is True and hints.destructive_hint is not True


def _check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Refuse what no message can carry; the transport would fail over it, and its call wait for an answer."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        to_json(arguments)
    except (PydanticSerializationError, ValueError) as error:
        raise ToolError(
            f"Cannot call the tool {name!r}: its arguments cannot be written as JSON: {error}. Correct them."
        ) from error


async def _on_agent_loop(coro: Coroutine[Any, Any, T]) -> T:
    loop = agent_loop()
    if loop.is_current_thread():
        return await coro
    return await asyncio.wrap_future(loop.submit(coro))


async def _walk_tools(client: Client) -> list[Tool]:
    page = await client.list_tools(cache_mode="refresh")
    tools = list(page.tools)
    for _ in range(_MAX_PAGES):
        if not page.next_cursor:
            return tools
        page = await client.list_tools(cursor=page.next_cursor, cache_mode="refresh")
        tools.extend(page.tools)
    raise ToolError(f"A list of tools has more than {_MAX_PAGES} pages, so it is not read to its end.")


def _progress_sink(on_progress: OnProgress) -> ProgressFnT:
    async def take(progress: float, total: float | None, message: str | None) -> None:
        on_progress(ToolProgress(done=progress, total=total, message=message or ""))

    return take


def _leaf_text(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"

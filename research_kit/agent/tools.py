"""MCP tool servers: connecting, listing, calling.

Owns when a connection is opened, given up and opened again; does not know what the tools do. Invariant: no
call waits longer than its timeout, and a call that may have taken effect is never sent a second time.
"""

from __future__ import annotations

import asyncio
import difflib
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
from research_kit.agent.tool_log import read_log_end
from research_kit.config import load_settings
from research_kit.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from mcp import Client, StdioServerParameters
    from mcp.server.mcpserver import MCPServer
    from mcp.shared.dispatcher import ProgressFnT
    from mcp.types import Tool

__all__ = ["OnProgress", "ToolServer", "is_read_only"]

T = TypeVar("T")
OnProgress = Callable[[ToolProgress], None]

# What a server may ask of a client that offers it; both are refused, in the words of either side.
_UNANSWERED = {"elicitation": "the user something", "sampling": "the client's language model something"}


class ToolServer:
    """An MCP server, connected on first use and again after it went away.

    Args:
        name: What this server is called in messages.
        target: An in-memory ``MCPServer``, ``StdioServerParameters`` of a program to start, or the URL of
            a streamable HTTP server (an `HttpTarget` when it wants headers).
        timeout_s: Longest time for connecting, and for each call.

    Raises:
        ConfigError: When the timeout or the URL cannot be used.
    """

    def __init__(
        self,
        name: str,
        target: MCPServer[Any] | StdioServerParameters | HttpTarget | str,
        *,
        timeout_s: float = 30.0,
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
        self._connection: Connection | None = None
        self._when_forgotten: weakref.finalize[..., ToolServer] | None = None
        self._tools: dict[str, Tool] = {}

    def __repr__(self) -> str:
        return f"ToolServer({self.name!r}, {self._target_text()})"

    @property
    def log_path(self) -> Path:
        """Where the error output of a started program goes."""
        file_name = re.sub(r"[^A-Za-z0-9_-]", "_", self.name) + ".log"
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

    async def aget_tool(self, name: str) -> Tool:
        """Return a tool as the server describes it now; may be awaited on any loop.

        Raises:
            ToolError: When the server cannot be reached, or has no such tool any more.
        """
        for tool in await self.alist_tools():
            if tool.name == name:
                return tool
        raise ToolError(self._unknown_tool(name))

    async def acall_tool(
        self, name: str, arguments: dict[str, Any] | None = None, *, on_progress: OnProgress | None = None
    ) -> ToolOutcome:
        """Call a tool; may be awaited on any loop. Cancelling the call cancels it on the server.

        Args:
            name: The tool.
            arguments: What it is called with.
            on_progress: Called on the agent loop whenever the server says how far it is.

        Raises:
            ToolError: When the server cannot be reached, went away, has no such tool, refused the call or
                took too long. A failure that the tool itself reports is an outcome with ``is_error``.
        """
        return await _on_agent_loop(self._call_tool(name, arguments or {}, on_progress))

    def fingerprint(self, tool: Tool) -> str:
        """Return a hash of where ``tool`` comes from and of all that its server says about it."""
        told = tool.model_dump(mode="json", include={"name", "description", "input_schema", "annotations"})
        where = [self.name, self._target_text(), getattr(self.target, "args", None)]
        return hashlib.sha256(json.dumps([where, told], sort_keys=True).encode()).hexdigest()

    async def aclose(self) -> None:
        """Close the connection; may be awaited on any loop."""
        await _on_agent_loop(self._disconnect())

    async def _list_tools(self) -> list[Tool]:
        tools = await self._with_client("list the tools", _walk_tools, is_repeatable=True)
        self._tools = {tool.name: tool for tool in tools}
        return tools

    async def _call_tool(
        self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None
    ) -> ToolOutcome:
        if name not in self._tools:
            await self._list_tools()
        if name not in self._tools:
            raise ToolError(self._unknown_tool(name))

        async def call(client: Client) -> ToolOutcome:
            answer = await client.call_tool(
                name,
                arguments,
                read_timeout_seconds=self.timeout_s,
                progress_callback=None if on_progress is None else _progress_sink(on_progress),
            )
            return read_outcome(answer)

        is_repeatable = is_read_only(self._tools[name])
        return await self._with_client(f"call the tool {name!r}", call, is_repeatable=is_repeatable)

    async def _with_client(
        self, action: str, use: Callable[[Client], Awaitable[T]], *, is_repeatable: bool
    ) -> T:
        """Run ``use``; once more on a new connection if the old one is gone and nothing happens twice."""
        try:
            return await self._attempt(action, use)
        except _ConnectionLost as lost:
            await self._drop(lost.connection)
            if not is_repeatable:
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
            # One second more than the client's own timeout, which also tells the server to stop.
            return await asyncio.wait_for(use(connection.ready.result()), self.timeout_s + 1)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise _ConnectionLost(connection) from error
            if error.code == REQUEST_TIMEOUT:
                raise ToolError(self._too_slow(action)) from error
            raise ToolError(self._refused(action, error.message, error.code)) from error
        except TimeoutError as error:
            raise ToolError(self._too_slow(action)) from error

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
            f"Cannot connect to the MCP server {self.name!r} ({self._target_text()}): {cause}. "
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

    def _unknown_tool(self, name: str) -> str:
        known = sorted(self._tools)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known) or 'no tools'}."
        return f"The MCP server {self.name!r} has no tool {name!r}. {hint}"

    def _refused(self, action: str, message: str, code: int) -> str:
        wish = next((wish for word, wish in _UNANSWERED.items() if word in message.lower()), None)
        if wish is not None:
            return (
                f"Cannot {action} of the MCP server {self.name!r}: it asks {wish} while it runs, which is "
                "not answered here. Give what it needs as arguments, or use another tool."
            )
        return (
            f"Cannot {action} of the MCP server {self.name!r}: it answered {message!r} (code {code}). "
            "Check the tool's name and arguments."
        )

    def _too_slow(self, action: str) -> str:
        return (
            f"Cannot {action} of the MCP server {self.name!r}: no answer within {self.timeout_s:g} s. "
            "Give ToolServer a larger timeout_s when the tool needs it."
        )

    def _target_text(self) -> str:
        command = getattr(self.target, "command", None)
        if command is not None:
            return f"command {command!r}"
        if isinstance(self.target, HttpTarget):
            return self.target.url
        return self.target if isinstance(self.target, str) else "in memory"

    def _remedy(self) -> str:
        if isinstance(self.target, str | HttpTarget):
            return "Check that the server runs and that its address is right."
        if not hasattr(self.target, "command"):
            return "It runs in this process; see the log for its traceback."
        tail = read_log_end(self.log_path)
        ending = f" and ends with {tail!r}" if tail else ""
        return f"Check the command; its error output is in {self.log_path}{ending}."


class _ConnectionLost(Exception):
    """The connection closed under a call; the cause says how."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("the connection closed")
        self.connection = connection


def is_read_only(tool: Tool) -> bool:
    """Return True when the server says that ``tool`` changes nothing."""
    return tool.annotations is not None and tool.annotations.read_only_hint is True


async def _on_agent_loop(coro: Coroutine[Any, Any, T]) -> T:
    loop = agent_loop()
    if loop.is_current_thread():
        return await coro
    return await asyncio.wrap_future(loop.submit(coro))


async def _walk_tools(client: Client) -> list[Tool]:
    page = await client.list_tools(cache_mode="refresh")
    tools = list(page.tools)
    while page.next_cursor:
        page = await client.list_tools(cursor=page.next_cursor, cache_mode="refresh")
        tools.extend(page.tools)
    return tools


def _progress_sink(on_progress: OnProgress) -> ProgressFnT:
    async def take(progress: float, total: float | None, message: str | None) -> None:
        on_progress(ToolProgress(done=progress, total=total, message=message or ""))

    return take


def _leaf_text(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"

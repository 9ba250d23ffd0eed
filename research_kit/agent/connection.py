"""One MCP client, opened and closed by the task that owns it.

Owns the owner task; does not know which calls are made. Invariant: whoever waits for `ready` gets the client
or an error, also when the owner task ends in a way nobody foresaw.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from research_kit.config import keep_loopback_direct, private_directory
from research_kit.errors import ToolError
from research_kit.trust import check_transport

if TYPE_CHECKING:
    from mcp import Client, StdioServerParameters
    from mcp.server.mcpserver import MCPServer

__all__ = ["LOG_MARK", "Connection", "HttpTarget"]

logger = logging.getLogger(__name__)

# Begins the line that each start of a program writes into its log.
LOG_MARK = "--- started"
_MAX_LOG_BYTES = 1_000_000
# The MCP client gives a started program 2 s to end by itself and kills it after 2 more.
_CLOSE_TIMEOUT_S = 5.0
_HTTP_TIMEOUT_S = 30.0
# A server may hold the stream of an answer open for as long as the call's own timeout allows.
_HTTP_READ_TIMEOUT_S = None
# A loop holds its tasks weakly, and the owner of a client must live until it has closed it.
_owner_tasks: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """A streamable HTTP server that wants headers.

    Attributes:
        url: Its address.
        headers: Sent with each request; not shown, because they carry keys.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)


class Connection:
    """An MCP client in an owner task on the running loop.

    Args:
        target: What to connect to.
        log_path: Where the error output of a started program goes.

    Attributes:
        loop: The loop the connection lives on.
        ready: The connected client, or the error that prevented it.
    """

    def __init__(
        self, target: MCPServer[Any] | StdioServerParameters | HttpTarget | str, *, log_path: Path
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Client] = self.loop.create_future()
        # The waiting caller may have given up; its error must not become a warning then.
        self.ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._target = target
        self._log_path = log_path
        self._stop = asyncio.Event()
        # An empty context: the connection outlives the span and the message that happened to open it.
        self._task = self.loop.create_task(self._own(), context=contextvars.Context())
        _owner_tasks.add(self._task)
        self._task.add_done_callback(_owner_tasks.discard)
        self._task.add_done_callback(self._on_end)

    def let_go(self) -> None:
        """Let the owner task close the client by itself; from any thread, also when the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._stop.set)

    async def aclose(self) -> None:
        """Let the owner task close the client, and wait for it within a deadline."""
        self._stop.set()
        if not self.ready.done():
            self._task.cancel()
        await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)

    async def _own(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            self.ready.set_result(await self._open(stack))
            await self._stop.wait()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if not self.ready.done():
            self.ready.set_exception(error or ToolError("The connection was closed during opening."))
        elif error is not None:
            logger.debug("A connection to an MCP server ended with an error.", exc_info=error)

    async def _open(self, stack: contextlib.AsyncExitStack) -> Client:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client

        target = self._target
        if isinstance(target, HttpTarget):
            return await _open_http(stack, target)
        if not isinstance(target, StdioServerParameters):
            return await stack.enter_async_context(Client(target))
        private_directory(self._log_path.parent, purpose="the error output of tool servers")
        errlog = stack.enter_context(_open_log(self._log_path))
        return await stack.enter_async_context(Client(stdio_client(target, errlog=errlog)))


def _open_log(path: Path) -> TextIO:
    """Open the log for one more start: what the program said before it went away is kept."""
    is_full = path.exists() and path.stat().st_size > _MAX_LOG_BYTES
    errlog = path.open("w" if is_full else "a", encoding="utf-8")
    errlog.write(f"{LOG_MARK} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
    errlog.flush()
    return errlog


async def _open_http(stack: contextlib.AsyncExitStack, target: HttpTarget) -> Client:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    keep_loopback_direct()
    if target.headers:
        check_transport(target.url, secret=f"The header {' and '.join(target.headers)}")
    timeout = httpx2.Timeout(_HTTP_TIMEOUT_S, read=_HTTP_READ_TIMEOUT_S)
    http_client = await stack.enter_async_context(httpx2.AsyncClient(headers=target.headers, timeout=timeout))
    return await stack.enter_async_context(
        Client(streamable_http_client(target.url, http_client=http_client))
    )

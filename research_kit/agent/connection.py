"""One MCP client, opened and closed by the task that owns it.

Owns the owner task; does not know which calls are made. Invariant: whoever waits for `ready` gets the client
or an error, also when the owner task ends in a way nobody foresaw.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_kit.agent.stdio_transport import MAX_MESSAGE_BYTES, StdioTransport
from research_kit.agent.tool_log import ToolLog
from research_kit.config import keep_loopback_direct
from research_kit.errors import ToolError
from research_kit.trust import check_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2
    from mcp import Client, StdioServerParameters
    from mcp.server.mcpserver import MCPServer

__all__ = ["Connection", "HttpTarget"]

logger = logging.getLogger(__name__)
# Without a handler, Python prints what MCP's client says of a server's mistakes into the cell.
logging.getLogger("mcp.client").addHandler(logging.NullHandler())

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

        target = HttpTarget(url=self._target) if isinstance(self._target, str) else self._target
        if isinstance(target, HttpTarget):
            return await _open_http(stack, target)
        if not isinstance(target, StdioServerParameters):
            return await stack.enter_async_context(Client(target))
        log = stack.enter_context(contextlib.closing(ToolLog(self._log_path)))
        return await stack.enter_async_context(Client(_transport(target, log)))


def _transport(target: StdioServerParameters, log: ToolLog) -> Any:
    if sys.platform == "win32":  # its programs need what only MCP's own transport does for them
        from mcp.client.stdio import stdio_client

        return stdio_client(target, errlog=TextIOWrapper(log.file, encoding="utf-8"))
    return StdioTransport(target, log)


async def _open_http(stack: contextlib.AsyncExitStack, target: HttpTarget) -> Client:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    keep_loopback_direct()
    if target.headers:
        check_transport(target.url, secret=f"The header {' and '.join(target.headers)}")
    timeout = httpx2.Timeout(_HTTP_TIMEOUT_S, read=_HTTP_READ_TIMEOUT_S)
    # Unpacked, so that an answer is no longer than what arrives.
    headers = {"Accept-Encoding": "identity", **target.headers}
    http_client = await stack.enter_async_context(
        httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks={"response": [_bound_answer]})
    )
    return await stack.enter_async_context(
        Client(
            streamable_http_client(target.url, http_client=http_client, max_sse_event_size=MAX_MESSAGE_BYTES)
        )
    )


async def _bound_answer(response: httpx2.Response) -> None:
    """Let an answer end with an error where it is too long; a stream of events has a limit of MCP's own."""
    if response.headers.get("content-type", "").lower().startswith("application/json"):
        is_packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        response.stream = _bounded(response.stream, is_packed=is_packed)


def _bounded(stream: Any, *, is_packed: bool) -> httpx2.AsyncByteStream:
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if is_packed:
                raise httpx2.StreamError("the answer is packed, which was not asked for")
            byte_count = 0
            async for chunk in stream:
                byte_count += len(chunk)
                if byte_count > MAX_MESSAGE_BYTES:
                    raise httpx2.StreamError(f"the answer has more than {MAX_MESSAGE_BYTES:,} bytes")
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()

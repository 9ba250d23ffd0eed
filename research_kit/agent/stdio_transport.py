"""A started program that speaks MCP on its standard input and output.

Owns the process and the two pipes; does not know what is said. Invariants: the memory and time that a message
takes grow with its length and no further than the limit; an answer that cannot be read is an error for the
call that waits for it; and no process outlives its transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from research_kit._words import visible_text
from research_kit.agent.tool_log import ToolLog
from research_kit.masking import masked_text

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp import StdioServerParameters
    from mcp.shared.message import SessionMessage
    from mcp.types import JSONRPCMessage

__all__ = ["MAX_MESSAGE_BYTES", "StdioTransport"]

MAX_MESSAGE_BYTES = 32_000_000
# A program is given this long to end by itself, and again after it was asked to.
_GRACE_S = 2.0
_POLL_S = 0.01
_CHUNK_BYTES = 65_536
_SHOWN_CHARACTERS = 300
# How nearly every server begins an answer.
_ANSWER = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,15})\s*,\s*"result"')


class StdioTransport:
    """The program and its streams, as an asynchronous context manager that `mcp.Client` takes.

    MCP's own adds each piece of a long line to all that came before, so that 30 MB take half a minute of the
    loop; it has no limit, and an answer that is not UTF-8 leaves its call waiting.

    Args:
        target: What to start.
        log: Takes what the program says beside the protocol.

    Attributes:
        command: The program; recordings name a server by it.
        args: Its arguments.
    """

    def __init__(self, target: StdioServerParameters, log: ToolLog) -> None:
        self.command, self.args = target.command, target.args
        self._context = _running(target, log)

    async def __aenter__(self) -> tuple[Any, Any]:
        """Start the program."""
        return await self._context.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End it."""
        return await self._context.__aexit__(kind, error, trace)


@contextlib.asynccontextmanager
async def _running(target: StdioServerParameters, log: ToolLog) -> AsyncIterator[tuple[Any, Any]]:
    from mcp.client.stdio import get_default_environment

    process = await asyncio.create_subprocess_exec(
        target.command,
        *target.args,
        env=get_default_environment() | (target.env or {}),
        cwd=target.cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=MAX_MESSAGE_BYTES,
    )
    incoming, read_stream = anyio.create_memory_object_stream[Any](0)
    write_stream, outgoing = anyio.create_memory_object_stream[Any](0)
    tasks = [
        asyncio.create_task(_read(process, incoming, log)),
        asyncio.create_task(_write(process, outgoing, incoming)),
        asyncio.create_task(_keep(process, log)),
    ]
    try:
        yield read_stream, write_stream
    finally:
        # Nobody reads any more: what the program still writes is thrown away, so that it can end.
        read_stream.close()
        write_stream.close()
        try:
            await _stop(process)
        finally:
            _kill(process)
            await _settle(tasks)


async def _read(
    process: asyncio.subprocess.Process, incoming: MemoryObjectSendStream[Any], log: ToolLog
) -> None:
    assert process.stdout is not None
    with incoming, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for line in _lines(process.stdout, log):
            message = _message_of(line)
            if message is None:
                text = masked_text(line[:_SHOWN_CHARACTERS].decode("utf-8", "replace"))
                log.note(f"--- on standard output, and no message: {visible_text(text.strip())}")
            else:
                await incoming.send(message)
    while await process.stdout.read(_CHUNK_BYTES):
        pass


async def _lines(stdout: asyncio.StreamReader, log: ToolLog) -> AsyncIterator[bytes]:
    while True:
        try:
            yield await stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            log.note(f"--- closed, because a message has more than {MAX_MESSAGE_BYTES:,} bytes")
            return


def _message_of(line: bytes) -> SessionMessage | None:
    """Return the message of a line; an error in the place of an answer that cannot be read."""
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        failure = _failure_of(line, str(error))
        return None if failure is None else SessionMessage(failure)


def _failure_of(line: bytes, cause: str) -> JSONRPCMessage | None:
    from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError

    request_id = _request_id(line)
    if request_id is None:
        return None
    details = next((part.strip() for part in cause.splitlines() if "Invalid JSON" in part), "it is no answer")
    fault = ErrorData(code=PARSE_ERROR, message=details.partition(" [")[0])
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=fault)


def _request_id(line: bytes) -> int | str | None:
    """Return whose answer a line is that breaks the rules: more is read than is allowed, for this alone."""
    try:
        loose = json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        found = _ANSWER.match(line)
        return int(found[1]) if found else None
    request_id = loose.get("id") if isinstance(loose, dict) and "method" not in loose else None
    return request_id if isinstance(request_id, int | str) else None


async def _write(
    process: asyncio.subprocess.Process,
    outgoing: MemoryObjectReceiveStream[Any],
    incoming: MemoryObjectSendStream[Any],
) -> None:
    assert process.stdin is not None
    try:
        async with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(f"{text}\n".encode())
                await process.stdin.drain()
    except OSError:
        # The program may still be there; without this its call would wait for an answer.
        incoming.close()


async def _keep(process: asyncio.subprocess.Process, log: ToolLog) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(_CHUNK_BYTES):
        log.take(chunk)


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    if await _has_ended(process):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(process, number)
        if await _has_ended(process):
            return


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    # Not `wait`: it also waits for the pipes, which what the program has started may hold open.
    deadline_s = time.monotonic() + _GRACE_S
    while process.returncode is None and time.monotonic() < deadline_s:
        await asyncio.sleep(_POLL_S)
    return process.returncode is not None


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _settle(tasks: list[asyncio.Task[None]]) -> None:
    """Let the readers come to the end of what is there, and end them when something holds the pipes open."""
    await asyncio.wait(tasks, timeout=_GRACE_S / 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

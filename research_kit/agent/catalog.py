"""Which tools there are, and in what state.

Owns the servers that the project's file names, and their states; connects through `ToolServer` and decides
nothing. Invariant: a server that cannot be used is a state with its reason, never an error, and the chats of
a process share each started program.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from research_kit.agent.loop import agent_loop
from research_kit.agent.mcp_config import ConfiguredServer, read_mcp_config
from research_kit.agent.mcp_file import find_mcp_config
from research_kit.agent.tools import ToolServer
from research_kit.errors import ConfigError, ToolError

__all__ = ["ServerState", "ToolState", "configured_servers", "list_tool_states"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolState:
    """One tool of a connected server."""

    name: str
    description: str
    needs_approval: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """One server and what is known of it.

    Attributes:
        name: The server's name.
        problem: Why it cannot be used; None when it is connected.
        tools: Its tools, in its own order; empty when it cannot be used.
        log_path: Where a started program writes its error output; None for other servers.
        is_trusted: Whether the user has trusted the file that names it.
    """

    name: str
    problem: str | None
    tools: tuple[ToolState, ...] = ()
    log_path: Path | None = None
    is_trusted: bool = True


class _Opened:
    """The one place where the process keeps the servers of configuration files."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.servers: dict[Path, dict[str, ToolServer]] = {}

    def renew(self, path: Path, entries: Sequence[ConfiguredServer]) -> list[ToolServer]:
        """Return the servers of a file: those that are there, as long as it still says so and is trusted.

        The others are closed: what was trusted before runs until somebody looks again, and no longer.
        """
        with self.lock:
            known = self.servers.get(path, {})
            kept = {entry.name: _server_of(entry, known) for entry in entries if entry.target is not None}
            self.servers[path] = kept
        for server in known.values():
            if server not in kept.values():
                agent_loop().submit(server.aclose())
        return list(kept.values())


def _server_of(entry: ConfiguredServer, known: Mapping[str, ToolServer]) -> ToolServer:
    assert entry.target is not None
    server = known.get(entry.name)
    return (
        server
        if server is not None and server.target == entry.target
        else ToolServer(entry.name, entry.target)
    )


_opened = _Opened()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_opened.reset)


def configured_servers(directory: Path) -> tuple[list[ToolServer], list[ServerState]]:
    """Return the servers named by the nearest configuration file, and what of it cannot be used.

    Nothing is started before a server is asked for its tools, and nothing of a file that is not trusted.
    """
    path = find_mcp_config(directory)
    if path is None:
        return [], []
    try:
        entries = read_mcp_config(path)
    except ConfigError as error:
        _opened.renew(path, [])
        return [], [ServerState(name=path.name, problem=str(error))]
    broken = [
        ServerState(name=entry.name, problem=entry.problem, is_trusted=entry.is_trusted)
        for entry in entries
        if entry.problem
    ]
    return _opened.renew(path, entries), broken


def list_tool_states(servers: Sequence[ToolServer]) -> list[ServerState]:
    """Connect to all servers side by side and return their states, in the given order."""

    async def states() -> list[ServerState]:
        return await asyncio.gather(*(_state(server) for server in servers))

    return agent_loop().run(states())


async def _state(server: ToolServer) -> ServerState:
    log_path = server.log_path if hasattr(server.target, "command") else None
    try:
        listed = await server.alist_tools()
    except ToolError as error:
        return ServerState(name=server.name, problem=str(error), log_path=log_path)
    tools = tuple(
        ToolState(
            name=tool.name, description=tool.description or "", needs_approval=not server.runs_unasked(tool)
        )
        for tool in listed
    )
    return ServerState(name=server.name, problem=None, tools=tools, log_path=log_path)

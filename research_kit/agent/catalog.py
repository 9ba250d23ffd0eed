"""Which tools there are, and in what state.

Owns the listing that a user reads; connects through `ToolServer` and decides nothing. Invariant: a server
that cannot be used is a row with its reason, never an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from research_kit.agent.loop import agent_loop
from research_kit.agent.mcp_config import find_mcp_config, read_mcp_config
from research_kit.agent.tools import ToolServer, is_read_only
from research_kit.errors import ToolError

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
    """

    name: str
    problem: str | None
    tools: tuple[ToolState, ...] = ()
    log_path: Path | None = None


def configured_servers(directory: Path) -> tuple[list[ToolServer], list[ServerState]]:
    """Return the servers named by the nearest configuration file, and those that it names wrongly.

    Raises:
        ConfigError: When the file itself cannot be used.
    """
    path = find_mcp_config(directory)
    entries = [] if path is None else read_mcp_config(path)
    servers = [ToolServer(entry.name, entry.target) for entry in entries if entry.target is not None]
    broken = [ServerState(name=entry.name, problem=entry.problem) for entry in entries if entry.problem]
    return servers, broken


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
        ToolState(name=tool.name, description=tool.description or "", needs_approval=not is_read_only(tool))
        for tool in listed
    )
    return ServerState(name=server.name, problem=None, tools=tools, log_path=log_path)

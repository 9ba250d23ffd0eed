"""A small MCP server over standard input and output, with tools that behave badly on request."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server: MCPServer[None] = MCPServer("practice")
READ_ONLY = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=READ_ONLY)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=READ_ONLY)
def process_id() -> int:
    """Return the server's process id."""
    return os.getpid()


@server.tool(annotations=READ_ONLY)
def crash_once(marker: str) -> str:
    """End the process when the file `marker` exists, deleting it first."""
    path = Path(marker)
    if path.exists():
        path.unlink()
        os._exit(7)
    return "alive"


@server.tool()
def crash() -> str:
    """End the process; says nothing about being read-only."""
    os._exit(7)


@server.tool(annotations=READ_ONLY)
async def wait_until_cancelled(marker: str) -> str:
    """Wait for ever; write `marker` when cancelled."""
    path = Path(marker)
    path.with_suffix(".started").touch()
    try:
        await asyncio.Event().wait()
    finally:
        path.touch()
    return "never"


@server.tool(annotations=READ_ONLY)
def fail() -> str:
    """Report a failure."""
    raise ToolError("the drawer is empty")


@server.tool(annotations=READ_ONLY)
def say_on_stderr(text: str) -> str:
    """Write to standard error."""
    print(text, file=sys.stderr, flush=True)
    return "said"


@server.tool()
def write(path: str, text: str) -> str:
    """Change something: write a file."""
    Path(path).write_text(text)
    return "written"


if __name__ == "__main__":
    server.run()

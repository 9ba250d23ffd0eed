"""An MCP server that lists what a file says at that moment, and writes down each call that it runs.

As a program it speaks on standard input and output, or over HTTP on the port that is its second argument.
The file holds ``{"tools": [...], "crash_into": {...}}``: with the second, the next call replaces the file by
it and ends the process, as a server does that comes back as another release.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())


def build(folder: Path) -> Server[Any]:
    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool.model_validate(tool) for tool in state(folder)["tools"]])

    async def call_tool(_context: Any, params: Any) -> CallToolResult:
        told = state(folder)
        with (folder / "calls").open("a") as calls:
            calls.write(f"{params.name} {json.dumps(params.arguments)}\n")
        if "crash_into" in told:
            (folder / "state.json").write_text(json.dumps(told["crash_into"]))
            os._exit(3)
        return CallToolResult(content=[TextContent(text="done")])

    return Server("changing", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve() -> None:
    server = build(FOLDER)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import uvicorn

        uvicorn.run(
            build(FOLDER).streamable_http_app(), host="127.0.0.1", port=int(sys.argv[2]), log_level="error"
        )
    else:
        asyncio.run(serve())

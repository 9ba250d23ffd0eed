"""MCP tools as DSPy tools: synchronous and asynchronous calls, approval, and their place in a trace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError as ServerToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel

from research_kit.agent import ToolRequest, ToolServer, agent_loop, as_dspy_tools
from research_kit.agent.dspy_tools import aas_dspy_tools
from research_kit.errors import ToolError

READ_ONLY = ToolAnnotations(read_only_hint=True)


class Place(BaseModel):
    name: str
    kind: Literal["shelf", "drawer"]


def make_server(name: str = "store") -> ToolServer:
    server: MCPServer[None] = MCPServer(name)
    kept: dict[str, str] = {"pen": "blue"}

    @server.tool(annotations=READ_ONLY)
    def look(thing: str) -> dict[str, str]:
        """Look at a thing."""
        if thing not in kept:
            raise ServerToolError(f"there is no {thing}")
        return {"thing": thing, "colour": kept[thing]}

    @server.tool()
    def paint(thing: str, colour: str) -> str:
        """Change a thing."""
        kept[thing] = colour
        return "painted"

    @server.tool(annotations=READ_ONLY)
    def find(places: list[Place]) -> int:
        """Count places."""
        return len(places)

    return ToolServer(name, server)


@pytest.fixture
def server() -> Iterator[ToolServer]:
    server = make_server()
    yield server
    server.close()


def tools_of(*servers: ToolServer, **options: Any) -> dict[str, Any]:
    return {tool.name: tool for tool in as_dspy_tools(*servers, **options)}


def test_synchronous_call_waits_for_the_answer(server: ToolServer) -> None:
    """Called plainly, a tool gives its text, with the structured content beside it."""
    answer = tools_of(server)["look"](thing="pen")
    assert isinstance(answer, str)
    assert answer.structured == {"thing": "pen", "colour": "blue"}


async def test_synchronous_call_works_under_a_running_loop(server: ToolServer) -> None:
    """A plain call works in a notebook cell, where a loop is running."""
    assert "blue" in tools_of(server)["look"](thing="pen")


async def test_awaited_call_works_on_any_loop(server: ToolServer) -> None:
    """An awaited call works on the caller's loop and on the agent loop, without blocking either."""
    look = (await aas_dspy_tools(server))[0]
    assert "blue" in await look.acall(thing="pen")
    assert "blue" in await asyncio.wrap_future(agent_loop().submit(look.acall(thing="pen")))


def test_synchronous_call_on_the_agent_loop_is_refused(server: ToolServer) -> None:
    """A plain call on the agent loop's own thread raises instead of waiting for itself."""
    look = tools_of(server)["look"]

    async def misuse() -> None:
        look(thing="pen")

    with pytest.raises(Exception, match="own thread"):
        agent_loop().run(misuse())


def test_reported_failure_raises(server: ToolServer) -> None:
    """A failure that the tool reports reaches the program as an error with its text."""
    with pytest.raises(ToolError, match="there is no brush"):
        tools_of(server)["look"](thing="brush")


def test_changing_tools_are_refused_without_approval(server: ToolServer) -> None:
    """A tool that is not marked read-only does not run when nobody can be asked."""
    tools = tools_of(server)
    with pytest.raises(ToolError, match=r"'paint' may change something.*approve="):
        tools["paint"](thing="pen", colour="red")
    assert "blue" in tools["look"](thing="pen")


def test_approval_decides(server: ToolServer) -> None:
    """Whoever approves sees name and arguments, off the loop's thread, and decides."""
    asked: list[tuple[str, dict[str, Any], bool]] = []

    def approve(request: ToolRequest) -> bool:
        is_loop_thread = threading.current_thread().name == "research-kit-loop"
        asked.append((request.name, request.arguments, is_loop_thread))
        return bool(request.arguments["colour"] == "red")

    tools = tools_of(server, approve=approve)
    assert tools["paint"](thing="pen", colour="red") == "painted"
    with pytest.raises(ToolError, match="not approved"):
        tools["paint"](thing="pen", colour="green")
    tools["look"](thing="pen")
    assert asked == [
        ("paint", {"thing": "pen", "colour": "red"}, False),
        ("paint", {"thing": "pen", "colour": "green"}, False),
    ]


def test_arguments_are_checked_before_the_call(server: ToolServer) -> None:
    """An argument of the wrong type is refused with its name; nested types are understood."""
    tools = tools_of(server)
    with pytest.raises(ValueError, match="thing"):
        tools["look"](thing=5)
    assert tools["find"](places=[{"name": "a", "kind": "shelf"}]) == "1"
    with pytest.raises(ValueError, match="places"):
        tools["find"](places=[{"name": "a", "kind": "roof"}])
    assert "$ref" not in str(tools["find"].args)


def test_equal_names_are_told_apart() -> None:
    """Two servers with a tool of one name keep both, the later under its server's name."""
    first, second = make_server("first"), make_server("second")
    assert {"look", "second_look"} <= set(tools_of(first, second))
    first.close()
    second.close()


def test_tool_calls_are_children_of_the_callers_span() -> None:
    """The span of a call belongs to the span that was current when the tool was called."""
    code = """
import asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
from research_kit.agent import ToolServer, agent_loop, as_dspy_tools, build_kernel_server
tools = as_dspy_tools(ToolServer("kernel", build_kernel_server(dict)))
tool = next(tool for tool in tools if tool.name == "list_variables")
tracer = trace.get_tracer("test")
def check(name):
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans[name]
    calls = [span for span in exporter.get_finished_spans() if "tools/call" in span.name]
    assert len(calls) == 1, calls
    assert calls[0].parent.span_id == root.context.span_id
    assert calls[0].context.trace_id == root.context.trace_id
    exporter.clear()
tool()
exporter.clear()
with tracer.start_as_current_span("synchronous"):
    tool()
check("synchronous")
async def main():
    with tracer.start_as_current_span("awaited"):
        await tool.acall()
asyncio.run(main())
check("awaited")
agent_loop().run(main())
check("awaited")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

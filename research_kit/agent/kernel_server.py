"""The MCP server ``kernel``: what an agent may see of a notebook's variables.

Owns the tools and their texts; does not compute: `queries` and `frame_plot` do. Invariant: nothing written
by a model is ever evaluated as code, and no variable is changed.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Annotated, Any

import anyio.to_thread
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from research_kit.agent.frame_plot import Chart, ChartKind, draw_chart
from research_kit.agent.queries import (
    Condition,
    Limits,
    Operation,
    QueryCall,
    QueryError,
    describe_frame,
    frame_query,
    is_frame,
    plain_frame,
    sql_query,
)
from research_kit.agent.queries.answers import near_names, show
from research_kit.agent.queries.filters import explained
from research_kit.agent.variables import class_name, short_text, size_text
from research_kit.errors import MissingExtraError

__all__ = ["build_kernel_server"]

_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_MAX_VARIABLES = 100
_ATTEMPTS = 5
_SHELL_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})
_HIDDEN_TYPES = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type)


def build_kernel_server(
    get_namespace: Callable[[], Mapping[str, Any]], *, limits: Limits | None = None
) -> MCPServer[Any]:
    """Return the in-memory server over the variables of ``get_namespace()``.

    Args:
        get_namespace: Called with each request, so that the tools see the variables of that moment;
            usually ``lambda: get_ipython().user_ns``.
        limits: What one query or chart may use.
    """
    with _untouched_root_logger():
        server: MCPServer[Any] = MCPServer(
            "kernel", instructions="Reads the variables of the user's notebook."
        )

    @server.tool(annotations=_READ_ONLY)
    async def list_variables() -> CallToolResult:
        """List the variables of the user's notebook with their types and sizes."""
        return await _answered(lambda call: _list_variables(_visible(get_namespace)))

    @server.tool(annotations=_READ_ONLY)
    async def describe_variable(
        name: Annotated[str, Field(description="Name of a variable in the notebook")],
    ) -> CallToolResult:
        """Describe one variable; for a table its columns, types, missing values and a numeric summary."""
        return await _answered(lambda call: _describe(_visible(get_namespace), name))

    _add_frame_tools(server, get_namespace, limits)
    return server


def _add_frame_tools(
    server: MCPServer[Any], get_namespace: Callable[[], Mapping[str, Any]], limits: Limits | None
) -> None:

    @server.tool(annotations=_READ_ONLY)
    async def query_dataframe(
        name: Annotated[str, Field(description="Name of a DataFrame variable")],
        operation: Annotated[Operation, Field(description="What to compute; count counts rows")],
        column: Annotated[str | None, Field(description="Column to compute on; not needed for count")] = None,
        where: Annotated[
            list[Condition] | None, Field(description="Only rows for which all conditions hold")
        ] = None,
        group_by: Annotated[str | None, Field(description="Compute for each value of this column")] = None,
        query: Annotated[
            str | None, Field(description="Only rows for which this pandas query holds: `a > 3 and b == 'x'`")
        ] = None,
    ) -> CallToolResult:
        """Compute one number, or a small table, from a DataFrame of the notebook."""
        chosen = {"column": column, "where": where, "group_by": group_by, "query": query}
        return await _answered(
            lambda call: _query(_visible(get_namespace), name, operation, chosen | {"call": call}), limits
        )

    @server.tool(annotations=_READ_ONLY)
    async def query_sql(
        sql: Annotated[
            str, Field(description="One SELECT of DuckDB's SQL; tables are the DataFrames' names")
        ],
    ) -> CallToolResult:
        """Run a SELECT over the DataFrames of the notebook, for joins and anything query_dataframe lacks."""
        return await _answered(lambda call: _run_sql(sql, _visible(get_namespace), call), limits)

    @server.tool(annotations=_READ_ONLY)
    async def plot_dataframe(
        name: Annotated[str, Field(description="Name of a DataFrame variable")],
        kind: Annotated[ChartKind, Field(description="Kind of chart")],
        x: Annotated[str, Field(description="Column along the horizontal axis, or counted by a histogram")],
        y: Annotated[str | None, Field(description="Column of numbers along the vertical axis")] = None,
        by: Annotated[str | None, Field(description="Column whose values get a colour each")] = None,
        query: Annotated[str | None, Field(description="Only rows for which this pandas query holds")] = None,
        title: Annotated[str, Field(description="Title above the chart", max_length=120)] = "",
    ) -> CallToolResult:
        """Draw a chart from a DataFrame; the user sees it. Bars count rows, or show means of y."""
        chart = Chart(kind=kind, x=x, y=y, by=by, title=title)
        return await _answered(lambda call: _plot(_visible(get_namespace), name, chart, query, call), limits)


class _Refusal(Exception):
    """A request that does not fit the notebook; the message goes to whoever asked."""


async def _answered(
    answer: Callable[[QueryCall], CallToolResult], limits: Limits | None = None
) -> CallToolResult:
    """Answer in a thread, which is left behind when the call is cancelled, and ends soon then."""
    call = QueryCall(limits)
    try:
        return await anyio.to_thread.run_sync(answer, call, abandon_on_cancel=True)
    except _Refusal as refusal:
        # Raised, it would get a prefix from the MCP SDK.
        return CallToolResult(content=[TextContent(text=str(refusal))], is_error=True)
    finally:
        call.cancel()


@contextlib.contextmanager
def _untouched_root_logger() -> Iterator[None]:
    """Keep the MCP SDK from configuring the kernel's logging, which it does unless there is a handler."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        yield
    finally:
        root.removeHandler(placeholder)


def _visible(get_namespace: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the user's own variables, from a namespace that a running cell may be changing."""
    for attempt in range(_ATTEMPTS):
        try:
            names = dict(get_namespace())
            break
        except RuntimeError:
            # "dictionary changed size during iteration"
            if attempt == _ATTEMPTS - 1:
                raise
    return {name: value for name, value in names.items() if _is_visible(name, value)}


def _is_visible(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and not name.startswith("_")
        and name not in _SHELL_NAMES
        # The type itself: `isinstance` would ask the object's `__class__`, which may be a property.
        and not issubclass(type(value), _HIDDEN_TYPES)
    )


def _list_variables(variables: dict[str, Any]) -> CallToolResult:
    names = sorted(variables)[:_MAX_VARIABLES]
    rows, lines = [], []
    for name in names:
        value = variables[name]
        kind, size = class_name(value), _size(value)
        rows.append({"name": name, "type": kind, "size": size, "is_table": is_frame(value)})
        lines.append(f"{name}: {kind}" + (f", {size}" if size else ""))
    if len(variables) > _MAX_VARIABLES:
        lines.append(f"and {len(variables) - _MAX_VARIABLES} more")
    return _result("\n".join(lines) or "There are no variables.", {"variables": rows})


def _describe(variables: dict[str, Any], name: str) -> CallToolResult:
    value = _variable(variables, name)
    if is_frame(value):
        try:
            with explained():
                text, structured = describe_frame(name, value)
        except QueryError as error:
            raise _Refusal(f"Cannot describe {name!r}: {error}") from error
        return _result(text, structured)
    kind, size, shown = class_name(value), size_text(value), short_text(value)
    return _result(
        f"{name}: {kind}{', ' + size if size else ''}\n{shown}",
        {"name": name, "type": kind, "size": size, "value": shown},
    )


def _query(
    variables: dict[str, Any], name: str, operation: Operation, chosen: dict[str, Any]
) -> CallToolResult:
    frame = _frame(variables, name)
    try:
        answer = frame_query(frame, operation, **chosen)
    except QueryError as error:
        raise _Refusal(f"Cannot compute {operation} on {name!r}: {error}") from error
    return _result(answer.text, {"name": name, **answer.structured})


def _run_sql(sql: str, variables: dict[str, Any], call: QueryCall) -> CallToolResult:
    frames = {name: value for name, value in variables.items() if is_frame(value)}
    try:
        answer = sql_query(sql, frames, call=call)
    except QueryError as error:
        raise _Refusal(f"Cannot run this SQL: {error}") from error
    return _result(answer.text, answer.structured)


def _plot(
    variables: dict[str, Any], name: str, chart: Chart, query: str | None, call: QueryCall
) -> CallToolResult:
    frame = _frame(variables, name)
    try:
        drawn = draw_chart(frame, chart, query=query, call=call)
    except (QueryError, MissingExtraError) as error:
        raise _Refusal(f"Cannot draw {name!r}: {error}") from error
    picture = ImageContent(data=base64.b64encode(drawn.png).decode(), mime_type="image/png")
    return CallToolResult(content=[TextContent(text=drawn.text), picture])


def _frame(variables: dict[str, Any], name: str) -> Any:
    frame = _variable(variables, name)
    if is_frame(frame):
        return frame
    tables = [key for key, value in variables.items() if is_frame(value)]
    raise _Refusal(
        f"The variable {name!r} is a {class_name(frame)}, not a DataFrame. "
        f"DataFrames here: {', '.join(tables) or 'none'}."
    )


def _variable(variables: dict[str, Any], name: str) -> Any:
    if name in variables:
        return variables[name]
    near = near_names(name, variables)
    hint = f"Did you mean {' or '.join(repr(other) for other in near)}?" if near else ""
    known = ", ".join(sorted(variables)[:20]) or "none"
    raise _Refusal(
        f"There is no variable {show(name)!r} in the notebook. {hint or 'There are: ' + known + '.'}"
    )


def _size(value: Any) -> str:
    if not is_frame(value):
        return size_text(value)
    rows, columns = plain_frame(value).shape
    return f"{rows} rows x {columns} columns"


def _result(text: str, structured: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], structured_content=structured)

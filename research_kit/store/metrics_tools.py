"""Tools in the input and output of an LM call: which were offered, and which were called.

Owns the shapes of messages of the common providers. Invariant: texts in which no tool can be named are not
parsed, so a query over many rows pays for the few that have any.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from research_kit.store.jsontext import compact, parse_or_none

__all__ = ["called_tools", "defined_tools", "register_tool_functions"]

_CALL_LISTS = ("tool_calls", "toolCalls")
_CALL_TYPES = ("tool_use", "tool_call", "function_call", "tool-call")
# Messages within an answer lie this deep at most: answer, choices, choice, message, content, part.
_MAX_DEPTH = 8


def register_tool_functions(connection: sqlite3.Connection) -> None:
    """Let SQL on ``connection`` call `called_tools` and `defined_tools`."""
    connection.create_function("called_tools", 1, called_tools, deterministic=True)
    connection.create_function("defined_tools", 1, defined_tools, deterministic=True)


def called_tools(output: str | None) -> str:
    """Return the names of all tool calls in an output as a JSON list, one per call."""
    if not output or ("tool" not in output and "function_call" not in output):
        return "[]"
    return compact(list(_calls(parse_or_none(output), _MAX_DEPTH)))


def defined_tools(given: str | None) -> str:
    """Return the names of the tools that an input offers as a JSON list, each once."""
    if not given or '"tools"' not in given:
        return "[]"
    content = parse_or_none(given)
    tools = content.get("tools") if isinstance(content, dict) else None
    if isinstance(tools, str):
        tools = parse_or_none(tools)
    names = [_name(tool) for tool in tools] if isinstance(tools, list) else []
    return json.dumps(list(dict.fromkeys(name for name in names if name)))


def _calls(content: Any, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    if isinstance(content, list):
        for part in content:
            yield from _calls(part, depth - 1)
    elif isinstance(content, dict):
        listed = next((content[key] for key in _CALL_LISTS if isinstance(content.get(key), list)), None)
        if listed is not None:
            yield from (name for call in listed if (name := _name(call)))
        elif content.get("type") in _CALL_TYPES and (name := _name(content)):
            yield name
        else:
            for part in content.values():
                yield from _calls(part, depth - 1)


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name") or tool.get("toolName")
    return name if isinstance(name, str) else None

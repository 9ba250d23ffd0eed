"""What is said about a tool server and its failures.

Owns the wording, and what makes a server the same one; connects to nothing. Invariant: what a server says is
quoted without secrets, on one line, and not at any length.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from research_kit._words import visible_text
from research_kit.agent.connection import HttpTarget
from research_kit.agent.tool_log import read_log_end
from research_kit.masking import masked_text

__all__ = [
    "changed_between",
    "identity_of",
    "refused",
    "remedy",
    "target_text",
    "too_slow",
    "unknown_tool",
]

# What a server may ask of a client that offers it; both are refused, in the words of either side.
_UNANSWERED = {"elicitation": "the user something", "sampling": "the client's language model something"}
_PARSE_ERROR = -32700
_MAX_QUOTED = 500
_MAX_NAMED = 50


def identity_of(target: Any) -> Any:
    """Return, as JSON values, all that makes a server the one that it is; hash it, for it holds keys."""
    if isinstance(target, HttpTarget):
        return [target.url, target.headers]
    if isinstance(target, str):
        return target
    if hasattr(target, "command"):
        return target.model_dump(mode="json")
    return f"in memory {id(target)}"


def target_text(target: Any) -> str:
    """Return in a few words what a server is."""
    command = getattr(target, "command", None)
    if command is not None:
        return f"command {command!r}"
    if isinstance(target, HttpTarget):
        return target.url
    return target if isinstance(target, str) else "in memory"


def unknown_tool(server: str, name: str, known: Collection[str]) -> str:
    """Say that a server has no such tool, and what was meant."""
    near = difflib.get_close_matches(name, known, n=1)
    names = ", ".join(visible_text(name, limit=_MAX_NAMED) for name in sorted(known)[:_MAX_NAMED])
    hint = f"Did you mean {near[0]!r}?" if near else f"It has: {names or 'no tools'}."
    return f"The MCP server {server!r} has no tool {name!r}. {hint}"


def refused(server: str, action: str, message: str, code: int) -> str:
    """Say that a server answered with an error."""
    wish = next((wish for word, wish in _UNANSWERED.items() if word in message.lower()), None)
    if wish is not None:
        return (
            f"Cannot {action} of the MCP server {server!r}: it asks {wish} while it runs, which is "
            "not answered here. Give what it needs as arguments, or use another tool."
        )
    quoted = visible_text(masked_text(message), limit=_MAX_QUOTED)
    if code == _PARSE_ERROR:
        return (
            f"Cannot {action} of the MCP server {server!r}: its answer cannot be read as JSON in UTF-8: "
            f"{quoted}. Ask for less at once, or tell the people who wrote the server."
        )
    return (
        f"Cannot {action} of the MCP server {server!r}: it answered '{quoted}' (code {code}). "
        "Check the tool's name and arguments."
    )


def too_slow(server: str, action: str, timeout_s: float) -> str:
    """Say that a server did not answer in time."""
    return (
        f"Cannot {action} of the MCP server {server!r}: no answer within {timeout_s:g} s. "
        "Give ToolServer a larger timeout_s when the tool needs it."
    )


def changed_between(server: str, name: str) -> str:
    """Say that a call is not repeated because the server came back as another one."""
    return (
        f"The MCP server {server!r} went away during the call of {name!r} and came back with another tool of "
        "that name, which may change something, so the call was not repeated. Call it again if you want it."
    )


def remedy(target: Any, log_path: Path) -> str:
    """Say where to look when a server cannot be reached."""
    if isinstance(target, str | HttpTarget):
        return "Check that the server runs and that its address is right."
    if not hasattr(target, "command"):
        return "It runs in this process; see the log for its traceback."
    tail = read_log_end(log_path)
    ending = f" and ends with {tail!r}" if tail else ""
    return f"Check the command; its error output is in {log_path}{ending}."

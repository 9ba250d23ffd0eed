"""The file in which a project names its tool servers: ``mcp.json`` or ``.mcp.json``.

Owns finding and reading it; expands nothing and connects to nothing. Invariant: a file is read once, and what
is shown, trusted and used is that content.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_kit.config import owner_id
from research_kit.errors import ConfigError
from research_kit.trust import is_trusted

__all__ = ["VARIABLE", "McpFile", "find_mcp_config", "load_mcp_file", "variable_names"]

# ${NAME} and ${NAME:-default}, wherever a text of the file stands.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FILE_NAMES = (".mcp.json", "mcp.json")
_MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class McpFile:
    """A configuration file, read once: what is shown, trusted and used is this content.

    Attributes:
        path: Where it lies.
        content: Its bytes.
        entries: The object ``mcpServers``, with its variables as they are written.
    """

    path: Path
    content: bytes = field(repr=False)
    entries: Mapping[str, Any] = field(repr=False)

    def is_trusted(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether the user has trusted this content, or needs not: it names no server."""
        return not self.entries or is_trusted(self.path, self.content, environ=environ)


def find_mcp_config(directory: Path) -> Path | None:
    """Return the nearest ``.mcp.json`` or ``mcp.json`` in ``directory`` or above it, None without one."""
    start = directory.resolve()
    candidates = (folder / name for folder in (start, *start.parents) for name in _FILE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def load_mcp_file(path: Path) -> McpFile:
    """Read the file, and expand nothing.

    Raises:
        ConfigError: When the file cannot be read, is not JSON, or has no object ``mcpServers``.
    """
    content = _read(path)
    servers = _parse(path, content).get("mcpServers")
    if not isinstance(servers, dict):
        raise ConfigError(
            f"{path} has no object 'mcpServers'. Write "
            '{"mcpServers": {"<name>": {"command": "..."}}}, or "url" for a server on the network.'
        )
    return McpFile(path=path, content=content, entries=servers)


def variable_names(entry: Any) -> Iterator[str]:
    """Yield the variables that the texts of an entry would be given."""
    waiting = [entry]
    while waiting:  # a loop, for an entry may be nested as deep as JSON goes
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield from (found[1] for found in VARIABLE.finditer(value))


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error}. Check the file, or remove it.") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {_MAX_FILE_BYTES:,} bytes, which no list of servers needs.")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse a file that somebody else has put into a folder above: it names programs to start."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file. Remove it, or put one in its place.")
    if owner_id() not in (None, status.st_uid) and status.st_uid != 0:
        raise ConfigError(
            f"{path} belongs to another user (id {status.st_uid}), so the programs that it names are not "
            "started. Copy the file if you trust it."
        )


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}, is not JSON: {error.msg}. Correct the file."
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, too deep
        raise ConfigError(f"Cannot read {path}: {error}. Check the file, or remove it.") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path} holds a {type(parsed).__name__}, not an object with 'mcpServers'.")
    return parsed

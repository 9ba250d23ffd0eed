"""The file in which a project names its tool servers: ``mcp.json`` or ``.mcp.json``.

Owns finding and reading it; expands nothing and connects to nothing. Invariant: a file is read once, and what
is shown, trusted and used is that content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_kit.errors import ConfigError
from research_kit.trust import is_trusted, read_own_file

__all__ = [
    "CONFIG_NAMES",
    "VARIABLE",
    "McpFile",
    "find_mcp_config",
    "load_mcp_file",
    "parse_mcp_file",
    "variable_names",
]

# ${NAME} and ${NAME:-default}, wherever a text of the file stands.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
CONFIG_NAMES = (".mcp.json", "mcp.json")


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
    candidates = (folder / name for folder in (start, *start.parents) for name in CONFIG_NAMES)
    return next((path for path in candidates if _is_file(path)), None)


def load_mcp_file(path: Path) -> McpFile:
    """Read the file, and expand nothing.

    Raises:
        ConfigError: When others can have written it, or it cannot be read or has no object ``mcpServers``.
    """
    return parse_mcp_file(path, read_own_file(path))


def parse_mcp_file(path: Path, content: bytes) -> McpFile:
    """Return what a file says that was read already.

    Raises:
        ConfigError: When it is not JSON, or has no object ``mcpServers``.
    """
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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that is closed to us
        return False


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

"""The tool servers that a project names in ``mcp.json`` or ``.mcp.json``.

Owns what its entries mean; connects to nothing. Invariants: of a file that the user has not trusted no
variable is expanded and no server has a target; and what is wrong with one server is kept beside that server,
and the others can be used.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_kit.agent.connection import HttpTarget
from research_kit.agent.mcp_file import VARIABLE, load_mcp_file
from research_kit.agent.server_plans import OWN_COMMAND, OWN_SETTINGS, plan_servers

if TYPE_CHECKING:
    from mcp import StdioServerParameters

__all__ = ["ConfiguredServer", "read_mcp_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredServer:
    """One server of a configuration file.

    Attributes:
        name: Its key in ``mcpServers``.
        target: What `ToolServer` connects to; None when the file is not trusted or its words cannot be used.
        problem: Why there is no target; None when there is one.
        is_trusted: Whether the user has trusted the file.
    """

    name: str
    target: StdioServerParameters | HttpTarget | None
    problem: str | None
    is_trusted: bool = True


def read_mcp_config(path: Path, *, environ: Mapping[str, str] | None = None) -> list[ConfiguredServer]:
    """Return the servers of the file, in its order; without targets when the user has not trusted it.

    Args:
        path: The file, with an object ``mcpServers``.
        environ: Where ``${VAR}`` and ``${VAR:-default}`` are looked up, and what names trusted folders; by
            default the environment.

    Raises:
        ConfigError: When the file cannot be read, is not JSON, or has no object ``mcpServers``.
    """
    variables = os.environ if environ is None else environ
    file = load_mcp_file(path)
    if not file.is_trusted(variables):
        return [
            ConfiguredServer(name=name, target=None, problem=plan.refusal(file.path), is_trusted=False)
            for name, plan in zip(file.entries, plan_servers(file), strict=True)
        ]
    return [_server(name, entry, path=path, variables=variables) for name, entry in file.entries.items()]


def _server(name: str, entry: Any, *, path: Path, variables: Mapping[str, str]) -> ConfiguredServer:
    from mcp import StdioServerParameters

    try:
        target = _target(_expanded(entry, variables), path.parent)
        if isinstance(target, StdioServerParameters) and target.command == OWN_COMMAND:
            target = _own_target(target, variables)
    except (ValueError, RecursionError) as error:
        problem = f"The MCP server {name!r} of {path} cannot be used: {error}"
        return ConfiguredServer(name=name, target=None, problem=problem)
    return ConfiguredServer(name=name, target=target, problem=None)


def _target(entry: Any, directory: Path) -> StdioServerParameters | HttpTarget:
    if not isinstance(entry, dict) or ("command" in entry) == ("url" in entry):
        raise ValueError("give either 'command' or 'url'.")
    if "url" in entry:
        url = _text(entry, "url")
        if not url.startswith(("http://", "https://")):
            raise ValueError("'url' must begin with http:// or https://.")
        return HttpTarget(url=url, headers=_texts(entry, "headers"))
    from mcp import StdioServerParameters

    args = entry.get("args", [])
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise ValueError("'args' must be a list of strings.")
    cwd = directory / (_text(entry, "cwd") if "cwd" in entry else "")
    return StdioServerParameters(
        command=_text(entry, "command"), args=args, env=_texts(entry, "env"), cwd=cwd
    )


def _own_target(target: StdioServerParameters, variables: Mapping[str, str]) -> StdioServerParameters:
    """Return this installation's command, which need not be on the PATH, with this process's settings."""
    settings = {name: value for name, value in variables.items() if name.startswith(OWN_SETTINGS)}
    return target.model_copy(
        update={
            "command": sys.executable,
            "args": ["-m", "research_kit.cli", *target.args],
            "env": settings | (target.env or {}),
        }
    )


def _text(entry: dict[str, Any], key: str) -> str:
    if not isinstance(entry[key], str) or not entry[key]:
        raise ValueError(f"{key!r} must be a string that is not empty.")
    return str(entry[key])


def _texts(entry: dict[str, Any], key: str) -> dict[str, str]:
    texts = entry.get(key, {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"{key!r} must be an object of strings.")
    return texts


def _expanded(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, variables) for part in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(lambda found: _variable(found, variables), value)


def _variable(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, default = found.groups()
    # As in a shell, ":-" also replaces a variable that is set and empty.
    value = variables.get(name) or default if default is not None else variables.get(name)
    if value is None:
        raise ValueError(f"the variable {name} is not set. Set it, or write ${{{name}:-default}}.")
    return value

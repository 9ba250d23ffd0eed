"""What the servers of a file would start or contact, in words that the user decides on.

Owns how an entry is shown before it is trusted; reads no file and expands nothing. Invariant: what is shown
is whole, holds no value of a variable and no secret, and cannot act on a terminal or a page.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_kit._words import visible_text
from research_kit.agent.mcp_file import McpFile, variable_names
from research_kit.masking import masked_text
from research_kit.sources import trust_command
from research_kit.trust import TRUST_VARIABLE

__all__ = ["OWN_COMMAND", "OWN_SETTINGS", "ServerPlan", "plan_servers"]

OWN_COMMAND = "research-kit"
# What this installation's own servers are given, whatever their entry says.
OWN_SETTINGS = ("LANGFUSE_", "RESEARCH_KIT_")

_MAX_REFUSAL = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What one server would do.

    Attributes:
        name: Its key in the file.
        deed: The command line that it starts or the address that it contacts, as the file has it.
        details: What it is given besides, in short sentences: names of variables, never values.
    """

    name: str
    deed: str
    details: tuple[str, ...]

    def refusal(self, path: Path) -> str:
        """Return why the server of a file that is not trusted cannot be used, and what to do."""
        deed = visible_text("; it ".join([self.deed, *self.details]), limit=_MAX_REFUSAL)
        command = visible_text(trust_command(path))
        return (
            f"not trusted, so not used: it {deed}. To allow it: {command}, or Trust in the chat panel; where "
            f"nobody can be asked, name its folder in {TRUST_VARIABLE}."
        )


def plan_servers(file: McpFile) -> tuple[ServerPlan, ...]:
    """Return what each server of the file would do, in its order."""
    return tuple(
        ServerPlan(name=_safe(name), deed=_deed(entry), details=tuple(_details(entry)))
        for name, entry in file.entries.items()
    )


def _deed(entry: Any) -> str:
    if not isinstance(entry, dict) or ("command" in entry) == ("url" in entry):
        return "names neither a program nor an address, or both"
    if "url" in entry:
        return f"contacts {_safe(_text(entry['url']))}"
    args = entry.get("args", [])
    words = [entry["command"], *(args if isinstance(args, list) else [args])]
    return f"starts {_safe(' '.join(shlex.quote(_text(word)) for word in words))}"


def _details(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        return
    if "cwd" in entry:
        yield f"in the folder {_safe(_text(entry['cwd']))}"
    given = sorted(set(variable_names(entry)))
    if entry.get("command") == OWN_COMMAND:
        given += [f"{prefix}*" for prefix in OWN_SETTINGS]
    if given:
        yield f"is given the values of your {', '.join(given)}"
    for key, verb in (("env", "sets"), ("headers", "sends the headers")):
        names = entry.get(key)
        if isinstance(names, Mapping) and names:
            yield f"{verb} {', '.join(map(_safe, names))}"


def _text(value: Any) -> str:
    # What is no string makes the entry unusable, also when the file is trusted.
    return value if isinstance(value, str) else f"({type(value).__name__})"


def _safe(text: str) -> str:
    return visible_text(masked_text(text))

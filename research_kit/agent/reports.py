"""What a user asks about the agent: which tools are there, and which language model would answer.

Owns the two tables and how they are shown; finds nothing out itself. Invariant: what cannot be used is shown
with its reason, and asking never raises for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_kit._words import visible_text
from research_kit.errors import LMNotFoundError, MissingExtraError

if TYPE_CHECKING:
    import dspy
    import pandas as pd

    from research_kit.agent.catalog import ServerState
    from research_kit.agent.tools import ToolServer

__all__ = ["LMReport", "ToolReport", "lm", "tools"]

_COLUMNS = ("server", "tool", "state", "is_read_only", "needs_approval", "description")
_MAX_DESCRIPTION = 90


class ToolReport:
    """The tools that a chat has here; a table in a notebook.

    Attributes:
        servers: One state per server, with its tools.
    """

    def __init__(self, servers: Sequence[ServerState]) -> None:
        self.servers = tuple(servers)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per tool, and one per server that cannot be used."""
        import pandas as pd

        dtypes = dict.fromkeys(_COLUMNS, "string") | {"is_read_only": "boolean", "needs_approval": "boolean"}
        return pd.DataFrame(list(self._rows()), columns=list(_COLUMNS)).astype(dtypes)

    def __len__(self) -> int:
        return sum(len(server.tools) for server in self.servers)

    def __repr__(self) -> str:
        lines = []
        for server in self.servers:
            lines.append(f"{visible_text(server.name)}: {server.problem or 'connected'}")
            for tool in server.tools:
                mark = "asks first" if tool.needs_approval else "read-only"
                lines.append(f"  {_safe(tool.name):<24} {mark:<10} {_first_line(_safe(tool.description))}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in ("server", "tool", "state", "runs", "description"))
        body = ""
        for server, tool, state, is_read_only, _, description in self._rows():
            runs = "" if is_read_only is None else "at once" if is_read_only else "asks first"
            cells = (server, tool or "", state, runs, _first_line(description or ""))
            body += f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _rows(self) -> Iterator[tuple[str, str | None, str, bool | None, bool | None, str | None]]:
        for server in self.servers:
            name = visible_text(server.name)
            if server.problem is not None:
                yield name, None, server.problem, None, None, None
            for tool in server.tools:
                asks = tool.needs_approval
                yield name, _safe(tool.name), "connected", not asks, asks, _safe(tool.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class LMReport:
    """The language model that would answer.

    Attributes:
        name: Its name; None when there is none.
        reason: Why it is the one, or why there is none and what to do.
        is_local: Whether it is the small model on this machine, which costs nothing.
    """

    name: str | None
    reason: str
    is_local: bool

    def __repr__(self) -> str:
        """Say it in a sentence or two."""
        if self.name is None:
            return f"No language model would answer. {self.reason}"
        cost = (
            "It runs on this machine and costs nothing." if self.is_local else "Its provider sets the price."
        )
        return f"{self.name} would answer: {self.reason}. {cost}"


def tools(*servers: ToolServer) -> ToolReport:
    """Connect to the tool servers that a chat has in this folder, and say what each offers.

    Starts the programs that ``mcp.json`` names when you have trusted it; otherwise says what it would start.

    Args:
        servers: Further servers, such as `research_kit.papers`.
    """
    from research_kit.agent.catalog import configured_servers, list_tool_states
    from research_kit.agent.kernel_server import build_kernel_server
    from research_kit.agent.tools import ToolServer

    configured, broken = configured_servers(Path.cwd())
    kernel = ToolServer("kernel", build_kernel_server(dict))
    report = ToolReport([*list_tool_states([kernel, *servers, *configured]), *broken])
    kernel.close()
    return report


def lm(choice: dspy.BaseLM | str | None = None) -> LMReport:
    """Say which language model a chat would use here, and why; calls none.

    Args:
        choice: What would be passed as ``lm``.

    Raises:
        ConfigError: When ``choice`` is neither a model nor a name.
    """
    from research_kit.agent.lm import resolve_lm

    try:
        found: Any = resolve_lm(choice)
    except (LMNotFoundError, MissingExtraError) as error:
        return LMReport(name=None, reason=str(error), is_local=False)
    return LMReport(name=found.name, reason=found.reason, is_local=found.is_local)


def _safe(text: str) -> str:
    """Return a server's own words such that they act on no terminal and no page."""
    return "\n".join(map(visible_text, text.splitlines()))


def _first_line(description: str) -> str:
    line = description.strip().partition("\n")[0]
    return line if len(line) <= _MAX_DESCRIPTION else line[: _MAX_DESCRIPTION - 1] + "…"

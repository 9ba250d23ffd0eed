"""The commands ``research-kit mcp`` and ``research-kit papers``: tool servers on standard input and output.

Parses and delegates. Invariant: standard output belongs to the protocol; nothing else is printed there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from research_kit.errors import ConfigError

__all__ = ["add_tool_server_commands"]


def add_tool_server_commands(commands: Any) -> None:
    """Add ``mcp`` and ``papers`` to the command line."""
    mcp = commands.add_parser(
        "mcp", help="an MCP server: sessions, costs, traces and failing cells, for any agent"
    )
    mcp.set_defaults(run=_serve_traces)
    papers = commands.add_parser("papers", help="an MCP server: searches and reads a folder of documents")
    papers.add_argument("folder", type=Path)
    papers.set_defaults(run=_serve_papers)


def _serve_traces(_: argparse.Namespace) -> int:
    from research_kit.agent.traces_server import build_traces_server

    build_traces_server().run()
    return 0


def _serve_papers(options: argparse.Namespace) -> int:
    from research_kit.agent.papers import serve_papers

    if not options.folder.is_dir():
        raise ConfigError(f"There is no folder {str(options.folder)!r}. Name one that holds documents.")
    serve_papers(options.folder)
    return 0

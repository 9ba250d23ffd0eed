"""The MCP server ``papers``: search and read a folder of Markdown, text and PDF files, with citations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_kit.agent.papers.launch import is_papers, papers
    from research_kit.agent.papers.server import serve_papers

__all__ = ["is_papers", "papers", "serve_papers"]

_MODULES = {"is_papers": "launch", "papers": "launch", "serve_papers": "server"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

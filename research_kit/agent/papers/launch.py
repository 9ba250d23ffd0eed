"""A folder of documents as a tool server: ``rk.papers("folder")``.

Owns the command that is started; reads no document itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit.config import load_settings
from research_kit.errors import ConfigError

if TYPE_CHECKING:
    from research_kit.agent.tools import ToolServer

__all__ = ["is_papers", "papers"]

_COMMAND = ["-m", "research_kit.cli", "papers"]


def papers(folder: str | os.PathLike[str], *, name: str = "papers", timeout_s: float = 60.0) -> ToolServer:
    """Return a tool server that searches and reads the documents below a folder, with citations.

    Markdown, text and PDF files (extra ``papers``) are read; nothing outside the folder is, whatever links
    lie in it. The program starts with the first use, and what it read is kept in the cache folder.

    Args:
        folder: The folder.
        name: What the server is called; give other names to further folders.
        timeout_s: Longest time for each call.

    Raises:
        ConfigError: When there is no such folder.
    """
    from mcp import StdioServerParameters

    from research_kit.agent.tools import ToolServer

    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ConfigError(f"Cannot read documents from {str(root)!r}: it {what}. Give the path of a folder.")
    target = StdioServerParameters(
        command=sys.executable,
        args=[*_COMMAND, str(root)],
        env={"RESEARCH_KIT_CACHE_DIR": str(load_settings().cache_dir)},
    )
    return ToolServer(name, target, timeout_s=timeout_s)


def is_papers(server: ToolServer) -> bool:
    """Return True for a server of documents, given by `papers` or named in ``mcp.json``."""
    return getattr(server.target, "args", [])[: len(_COMMAND)] == _COMMAND

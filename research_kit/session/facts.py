"""Where a session runs: kernel, notebook, host, versions, commit.

Owns the finding out; sends nothing. Invariant: nothing here fails or waits: what is not known yet, or never,
is left out, and git is asked on a thread of its own.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from research_kit._optional import DISTRIBUTION
from research_kit.session.identity import MAX_ID_LENGTH

__all__ = ["find_git_facts", "note_notebook", "notebook_path", "session_facts", "start_finding_commit"]

_PACKAGES = ("dspy", "langfuse", "mcp", "ipykernel", "numpy", "pandas")
_GIT_TIMEOUT_S = 5.0

_lock = threading.Lock()
_git_facts: dict[str, str] = {}
_is_git_asked = False
_told_by_front_end = ""


def session_facts() -> Mapping[str, str]:
    """Return what is known about the place where this session runs, as metadata."""
    known = {**_fixed_facts(), "notebook": notebook_path() or "", **_git_facts}
    return {key: value[:MAX_ID_LENGTH] for key, value in known.items() if value}


def notebook_path() -> str | None:
    """Return the notebook's path from ``RESEARCH_KIT_NOTEBOOK``, else from the front end or Jupyter's server.

    Returns:
        None when nobody tells it; of a path longer than 200 characters the end.
    """
    told = (os.environ.get("RESEARCH_KIT_NOTEBOOK"), _told_by_front_end, os.environ.get("JPY_SESSION_NAME"))
    path = next((text.strip() for text in told if text and text.strip()), "")
    # The end of a long path tells more than its beginning.
    return path[-MAX_ID_LENGTH:] or None


def note_notebook(path: object) -> None:
    """Take note of the path that a front end tells the kernel, as VS Code does."""
    global _told_by_front_end
    _told_by_front_end = path if isinstance(path, str) else ""


def start_finding_commit() -> None:
    """Ask git for the commit of the working folder, once, without waiting for it."""
    global _is_git_asked
    with _lock:
        if _is_git_asked:
            return
        _is_git_asked = True
    folder = Path.cwd()
    threading.Thread(
        target=lambda: _git_facts.update(find_git_facts(folder)), name="research-kit-git", daemon=True
    ).start()


def find_git_facts(folder: Path) -> dict[str, str]:
    """Return commit and dirty flag of the repository around ``folder``; nothing outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    is_dirty = {} if changes is None else {"git_dirty": "true" if changes else "false"}
    return {"git_commit": commit, **is_dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            # Without it `git status` writes the index, which may disturb the user's own git.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


@lru_cache(maxsize=1)
def _fixed_facts() -> Mapping[str, str]:
    versions = {f"version_{name.replace('-', '_')}": _version(name) for name in _PACKAGES}
    return {
        "kernel_id": _kernel_id(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "version_research_kit": _version(DISTRIBUTION),
        **versions,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _kernel_id() -> str:
    """Read the kernel's id from the name of its connection file; empty outside of a kernel."""
    if "ipykernel" not in sys.modules:
        return ""
    from ipykernel.connect import get_connection_file

    try:
        return Path(get_connection_file()).stem.removeprefix("kernel-")
    except (RuntimeError, OSError, ValueError):  # ipykernel is imported, and this is not its kernel
        return ""

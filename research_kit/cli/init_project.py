"""``research-kit init``: the files that a new project begins with.

Owns where these files go; what they say is in ``project_files``. Invariant: nothing that exists is changed,
but that lines are added to ``.gitignore`` and a table to ``pyproject.toml``, where they are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from research_kit.cli.printing import say
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_text
from research_kit.trust import trust_file

__all__ = ["add_init_command", "init_project"]


def add_init_command(commands: Any) -> None:
    """Add ``research-kit init`` to the command line."""
    parser = commands.add_parser("init", help="write the files that a project begins with")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="by default this one")
    parser.set_defaults(run=_run)


def init_project(folder: Path) -> list[tuple[Path, str]]:
    """Write what is missing, and return each file with what was done to it: written, extended or kept.

    Raises:
        ConfigError: When a file cannot be written.
    """
    templates = files("research_kit.cli") / "project_files"
    try:
        return [
            (folder / name, put(folder / name, (templates / template).read_text(encoding="utf-8")))
            for name, (template, put) in _FILES.items()
        ]
    except OSError as error:
        raise ConfigError(
            f"Cannot write {error.filename!r}: {error.strerror}. Choose another folder, or correct its "
            "permissions."
        ) from error


def _write_trusted(path: Path, content: str) -> str:
    """Write a file of ours, which the user then need not be asked about."""
    done = _write(path, content)
    if done == "written":
        trust_file(path, path.read_bytes())
    return done


def _run(options: argparse.Namespace) -> int:
    for path, done in init_project(options.folder):
        say(f"{done:9} {plain_text(str(path))}")
    say("\nNext: open notebooks/first_session.ipynb in JupyterLab. research-kit doctor says what is set up.")
    return 0


def _write(path: Path, content: str) -> str:
    if path.exists():
        return "kept"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return "written"


def _add_table(path: Path, content: str) -> str:
    """Append ``content`` to a TOML file, unless its table is there."""
    if not path.exists():
        return _write(path, content)
    text = path.read_text(encoding="utf-8")
    if content.partition("\n")[0] in text:
        return "kept"
    path.write_text(f"{text.rstrip()}\n\n{content}", encoding="utf-8")
    return "extended"


def _add_lines(path: Path, content: str) -> str:
    """Append the lines of ``content`` that a file does not have."""
    if not path.exists():
        return _write(path, content)
    text = path.read_text(encoding="utf-8")
    missing = [line for line in content.splitlines() if line not in text.splitlines()]
    if not missing:
        return "kept"
    path.write_text("\n".join([text.rstrip("\n"), *missing, ""]), encoding="utf-8")
    return "extended"


_FILES: dict[str, tuple[str, Callable[[Path, str], str]]] = {
    ".env.example": ("env.example", _write),
    ".gitignore": ("gitignore", _add_lines),
    "mcp.json": ("mcp.json", _write_trusted),
    "notebooks/first_session.ipynb": ("first_session.ipynb", _write),
    "pyproject.toml": ("regression.toml", _add_table),
}

"""``research-kit trust``: looking at what a project's files would do, and allowing it.

Parses, shows and asks; what trust means is in `research_kit.trust`. Invariant: what is trusted is the content
that was shown, and nothing that is printed is a value of a variable or acts on the terminal.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from research_kit._words import visible_text
from research_kit.cli.printing import say
from research_kit.errors import ConfigError
from research_kit.session.environment_file import is_own_name
from research_kit.trust import TRUST_VARIABLE, forget_trust, is_trusted, list_trusted, trust_file

__all__ = ["add_trust_command"]

_ENVIRONMENT_FILE = ".env"
_REFERENCE = re.compile(r"\$\{([^}:]*)")
_MAX_BYTES = 10_000_000


def add_trust_command(commands: Any) -> None:
    """Add ``research-kit trust`` to the command line."""
    parser = commands.add_parser("trust", help="look at a project's mcp.json and .env, and allow them")
    parser.add_argument(
        "path", type=Path, nargs="?", help="a file, or a folder that has some; by default those used here"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--list", action="store_true", help="what is trusted")
    parser.add_argument("--forget", action="store_true", help="take it back")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.list:
        return _show_list()
    if options.forget:
        return _forget(options.path)
    contents = [(path, _read(path)) for path in _files(options.path)]
    new = [(path, content) for path, content in contents if not _is_known(path, content)]
    if new and not options.yes and not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here. Read the lines above, and add --yes when you agree.")
    answers = [_settle(path, content, is_agreed=options.yes) for path, content in new]
    return 0 if all(answers) else 1


def _show_list() -> int:
    for file in list_trusted():
        try:
            state = "trusted" if is_trusted(file.path, _read(file.path)) else "changed since, asks again"
        except ConfigError:
            state = "not there any more"
        say(f"{file.time}  {visible_text(str(file.path))}  ({state})")
    return 0


def _forget(path: Path | None) -> int:
    if path is None:
        raise ConfigError("--forget needs the path of a file; research-kit trust --list shows those trusted.")
    was_trusted = forget_trust(path)
    say(f"{'forgotten' if was_trusted else 'was not trusted'}: {visible_text(str(path))}")
    return 0


def _files(path: Path | None) -> list[Path]:
    """Return what is to be judged: a file, those of a folder, or those that a kernel would use here."""
    from research_kit.agent.mcp_file import CONFIG_NAMES, find_mcp_config

    if path is not None and not path.is_dir():
        return [path]
    folder = Path() if path is None else path
    named = [folder / name for name in (*CONFIG_NAMES, _ENVIRONMENT_FILE) if (folder / name).is_file()]
    above = find_mcp_config(folder) if path is None else None
    if above is not None and not any(above.samefile(known) for known in named):
        named.append(above)
    if not named:
        raise ConfigError(
            f"There is no {', '.join(CONFIG_NAMES)} or {_ENVIRONMENT_FILE} in {str(folder.absolute())!r}, so "
            "there is nothing to trust."
        )
    return named


def _is_known(path: Path, content: bytes) -> bool:
    """Show what a file would do, unless it is trusted."""
    shown = visible_text(str(path.absolute()))
    if is_trusted(path, content):
        say(f"{shown} is trusted as it is.")
        return True
    say(f"{shown}:")
    for line in _deeds(path, content):
        say(f"  {line}")
    return False


def _settle(path: Path, content: bytes, *, is_agreed: bool) -> bool:
    """Trust the content that was shown, when the user agrees."""
    shown = visible_text(str(path.absolute()))
    if not is_agreed and not _agrees(f"Trust {shown}? [y/N] "):
        say("not trusted")
        return False
    trust_file(path, content)
    say(f"{shown} is trusted until it changes.")
    return True


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _deeds(path: Path, content: bytes) -> Iterator[str]:
    from research_kit.agent.mcp_file import parse_mcp_file
    from research_kit.agent.server_plans import plan_servers

    if path.suffix != ".json":
        yield from _settings(content)
        return
    plans = plan_servers(parse_mcp_file(path, content))
    for plan in plans:
        yield f"{plan.name} {plan.deed}"
        yield from (f"    {detail}" for detail in plan.details)
    if plans:
        yield "Its servers run with your rights; tools that they call read-only run without asking."


def _settings(content: bytes) -> Iterator[str]:
    from dotenv import dotenv_values

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"It is not a text file in UTF-8: {error}. Correct it, or remove it.") from error
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    for name, value in values.items():
        if is_own_name(name) and name != TRUST_VARIABLE:
            taken = sorted({visible_text(found[1]) for found in _REFERENCE.finditer(value or "")})
            given = f", with the values of your {', '.join(taken)}" if taken else ""
            yield f"sets {visible_text(name)}{given}"


def _read(path: Path) -> bytes:
    """Return the content of a file that may be anybody's: it is shown before anything follows from it."""
    try:
        if not path.is_file():
            raise ConfigError(f"There is no file {str(path)!r}. Give the path of an mcp.json or .env.")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read {str(path)!r}: {error.strerror}. Check the file.") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{str(path)!r} has more than {_MAX_BYTES:,} bytes, which no such file needs.")
    return content

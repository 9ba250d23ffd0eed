"""Where keys and addresses came from: from the user, or from a file of the project.

Owns the note of what files have said, itself a variable so that child processes inherit it, and the rule of
what may be used together; reads no file. Invariant: a key goes to an address only when both came from one
place. What the user has set, in the environment, in a cell or as an argument, is one place; each file is
another.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "LANGFUSE",
    "LM",
    "NOTE_VARIABLE",
    "Group",
    "Part",
    "Sources",
    "find_mixture",
    "forget_file",
    "langfuse_mixture",
    "note_file",
    "read_sources",
    "trust_command",
    "withdraw_mixed",
]

# No setting: what files have said, for this process and its children.
NOTE_VARIABLE = "RESEARCH_KIT_FROM_FILE"


class Group(NamedTuple):
    """Variables that belong together; each role may have several names, the first that is set counts."""

    address: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]

    @property
    def roles(self) -> tuple[tuple[str, ...], ...]:
        """The names of the address and of each key."""
        return (self.address, *self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the group."""
        return tuple(name for role in self.roles for name in role)


LANGFUSE = Group(("LANGFUSE_BASE_URL", "LANGFUSE_HOST"), (("LANGFUSE_PUBLIC_KEY",), ("LANGFUSE_SECRET_KEY",)))
LM = Group(("RESEARCH_KIT_LM_BASE_URL",), (("RESEARCH_KIT_LM_API_KEY",),))
_NAMES = (*LANGFUSE.names, *LM.names, "RESEARCH_KIT_LM")


class Part(NamedTuple):
    """A value that is used with others: its name, and the file that it comes from; None means the user."""

    name: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values of keys, addresses and the model's name come from.

    Attributes:
        used: The file of each name that has a value; None means the user.
        withheld: The file of each name whose value is not used, as others of its group come from elsewhere.
    """

    used: Mapping[str, str | None]
    withheld: Mapping[str, str]

    def part(self, role: tuple[str, ...]) -> Part | None:
        """Return what plays a role: what has a value, else what is withheld."""
        for table in (self.used, self.withheld):
            for name in role:
                if name in table:
                    return Part(name, table[name])
        return None


def read_sources(environ: Mapping[str, str]) -> Sources:
    """Return where values come from; one that was changed after a file had set it is the user's."""
    noted = _noted(environ)
    files = {name: file for name, (file, mark) in noted.items() if mark == _mark(environ.get(name, ""))}
    used = {name: files.get(name) for name in _NAMES if environ.get(name, "").strip()}
    withheld = {name: file for name, (file, mark) in noted.items() if not mark and name not in used}
    return Sources(used, withheld)


def note_file(
    environ: MutableMapping[str, str], file: str, taken: Mapping[str, str], withheld: Iterable[str]
) -> None:
    """Note what ``file`` has set, and what of it is not used."""
    noted = {name: [file, _mark(value)] for name, value in taken.items()}
    noted |= {name: [file, ""] for name in withheld}
    if noted:
        environ[NOTE_VARIABLE] = json.dumps({**_noted(environ), **noted})


def forget_file(environ: MutableMapping[str, str], file: str) -> None:
    """Let what ``file`` has set count as the user's own, as when the user has trusted it."""
    noted = {name: note for name, note in _noted(environ).items() if note[0] != file}
    if NOTE_VARIABLE in environ:
        environ[NOTE_VARIABLE] = json.dumps(noted)


def find_mixture(parts: Iterable[Part | None], *, advice: str = "") -> str:
    """Say why values must not be used together; empty when all come from one place.

    Args:
        parts: The values that would be used.
        advice: What else can be done, as a clause that ends the last sentence.
    """
    places: dict[str | None, list[str]] = {}
    for part in parts:
        if part is not None:
            places.setdefault(part.file, []).append(part.name)
    if len(places) < 2:
        return ""
    said = " and ".join(f"{_listed(names)} from {_shown(file)}" for file, names in places.items())
    trust = " or ".join(trust_command(file) for file in places if file)
    return (
        f"{said} are not used together: a key goes only to an address from the same source. Put all of them "
        f"into one place, or, when you have read the file and trust it: {trust}, and restart "
        f"the kernel{advice}."
    )


def langfuse_mixture(sources: Sources) -> str:
    """Say why Langfuse's keys and address must not be used together; empty when they may."""
    address, *keys = (sources.part(role) for role in LANGFUSE.roles)
    return find_mixture((address, *keys)) if any(keys) else ""


def withdraw_mixed(environ: MutableMapping[str, str]) -> None:
    """Take Langfuse's variables that a file has set out of ``environ`` when the user has set others of them.

    Langfuse's own client, and programs that are started, would use them together.
    """
    if NOTE_VARIABLE not in environ:
        return
    sources = read_sources(environ)
    if not langfuse_mixture(sources):
        return
    for name in LANGFUSE.names:
        if file := sources.used.get(name):
            del environ[name]
            note_file(environ, file, {}, [name])


def trust_command(file: str | Path) -> str:
    """Return the command with which the user trusts a file."""
    return f"research-kit trust {shlex.quote(str(file))}"


def _noted(environ: Mapping[str, str]) -> dict[str, list[str]]:
    try:
        noted = json.loads(environ.get(NOTE_VARIABLE, "{}"))
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _mark(value: str) -> str:
    """Return what tells whether a value is still the file's."""
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16] if value else ""


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _shown(file: str | None) -> str:
    return "your environment" if file is None else repr(file)

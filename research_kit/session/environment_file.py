"""The ``.env`` file beside the notebook.

Owns which of its names count: it may label traces, record less, choose a model, and give keys together with
their address; what moves data or takes a protection away is the user's to set. Invariants: a variable that is
set already stays as it is, names of other programs are not touched, and no value of a file that the user has
not trusted takes in a variable of the environment.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from research_kit.errors import ConfigError
from research_kit.session.facts import notebook_path
from research_kit.sources import LANGFUSE, LM, NOTE_VARIABLE, Group, forget_file, note_file, trust_command
from research_kit.trust import TRUST_VARIABLE, is_trusted, read_own_file

__all__ = ["PROJECT_NAMES", "EnvironmentFile", "is_own_name", "read_environment_file"]

_PREFIXES = ("LANGFUSE_", "RESEARCH_KIT_")
_OWN_NAME = re.compile(r"(?:LANGFUSE|RESEARCH_KIT)_[A-Z0-9_]+")
# Reading takes a second for so much, and longer than anybody waits for a line of blanks.
_MAX_BYTES = 256_000
_BLANKS = re.compile(r"[^\S\r\n]{64,}")
_MAX_VALUE_CHARS = 10_000
# What a file of the project may decide. Missing are limits, for they delete what waits or is stored; folders;
# the session, which may be another project's; and what only Langfuse's SDK reads.
PROJECT_NAMES = frozenset(
    {
        "LANGFUSE_OBSERVE_DECORATOR_IO_CAPTURE_ENABLED",
        "LANGFUSE_RELEASE",
        "LANGFUSE_TIMEOUT",
        "LANGFUSE_TRACING_ENABLED",
        "LANGFUSE_TRACING_ENVIRONMENT",
        "LANGFUSE_USER_ID",
        "RESEARCH_KIT_CAPTURE_IO",
        "RESEARCH_KIT_LM",
        "RESEARCH_KIT_MASK",
        "RESEARCH_KIT_NOTEBOOK",
    }
)
_MASK = "RESEARCH_KIT_MASK"
_OTHER_KEY = "OPENAI_API_KEY"
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_]{1,100})(?::-([^}]{0,1000}))?\}")
# A repeated group may try each text in more ways than there is time for.
_REPEATED_GROUP = re.compile(r"\)(?:[*+]|\{\d*,\})")


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What became of a ``.env`` file.

    Attributes:
        path: The file; None when there is none.
        is_trusted: Whether the user has trusted it with its present content.
        problems: What of it is ignored, why, and what to do; one text each.
    """

    path: Path | None = None
    is_trusted: bool = False
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Decision:
    """What becomes of the names of a file: taken, withheld from others of their group, or ignored."""

    taken: dict[str, str] = field(default_factory=dict)
    withheld: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_environment_file() -> EnvironmentFile:
    """Set the variables of Langfuse and of this package that ``.env`` names and may decide.

    It is looked for in the notebook's folder when Jupyter tells that, then in the working folder. To read it
    twice changes nothing.

    Raises:
        ConfigError: When there is such a file and it is no text.
    """
    path = _find()
    if path is None:
        return EnvironmentFile()
    try:
        content = read_own_file(path)
    except ConfigError as error:
        return EnvironmentFile(path, problems=(str(error),))
    if len(content) > _MAX_BYTES:
        return EnvironmentFile(
            path, problems=(f"{str(path)!r} is not read: it has over {_MAX_BYTES} bytes.",)
        )
    text = _BLANKS.sub(" ", _decoded(path, content))
    # Most files are of other programs' variables, and reading them costs a library.
    if not any(prefix in text for prefix in _PREFIXES):
        return EnvironmentFile(path)
    if is_trusted(path, content):
        return _take_all(path, _values(text, interpolate=True))
    return _take_some(path, _values(text, interpolate=False))


def is_own_name(name: str) -> bool:
    """Whether a variable is Langfuse's or this package's."""
    return _OWN_NAME.fullmatch(name) is not None


def _find() -> Path | None:
    folders = [*_notebook_folder(), Path.cwd()]
    return next((path for folder in folders if (path := folder / ".env").is_file()), None)


def _notebook_folder() -> list[Path]:
    path = Path(notebook_path() or "")
    return [path.parent] if path.is_absolute() and path.parent.is_dir() else []


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Cannot read {str(path)!r}: {error}. Make it a readable text file in UTF-8, or remove it."
        ) from error


def _values(text: str, *, interpolate: bool) -> dict[str, str]:
    from dotenv import dotenv_values

    # Lines that are none of ours may have any form; its warning about them would be printed into the cell.
    logging.getLogger("dotenv").addHandler(logging.NullHandler())
    values = dotenv_values(stream=io.StringIO(text), interpolate=interpolate)
    return {name: value for name, value in values.items() if value is not None and "\0" not in value}


def _take_all(path: Path, values: Mapping[str, str]) -> EnvironmentFile:
    forget_file(os.environ, str(path))
    for name, value in _with_lm_key(values).items():
        # To trust a file is not to trust what it would trust.
        if is_own_name(name) and name not in (NOTE_VARIABLE, TRUST_VARIABLE):
            os.environ.setdefault(name, value)
    return EnvironmentFile(path, is_trusted=True)


def _with_lm_key(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values with the file's OpenAI key as the key of the server that it names."""
    if values.get(_OTHER_KEY) and any(values.get(name) for name in LM.address):
        return {LM.keys[0][0]: values[_OTHER_KEY], **values}
    return dict(values)


def _take_some(path: Path, values: Mapping[str, str]) -> EnvironmentFile:
    said, unresolved = _resolved(values)
    decision = _decide(said)
    if _MASK in decision.taken:
        _check_mask(path, decision.taken[_MASK])
    os.environ.update(decision.taken)
    note_file(os.environ, str(path), decision.taken, decision.withheld)
    return EnvironmentFile(path, problems=_problems(path, decision.ignored, unresolved))


def _resolved(values: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the values with what they take from the file itself, and the names of those that want more."""
    said: dict[str, str] = {}
    unresolved: list[str] = []
    for name, value in values.items():
        references = list(_REFERENCE.finditer(value))
        if any(found[1] not in said and found[2] is None for found in references):
            unresolved.append(name)
            continue
        parts = [said.get(found[1], found[2]) for found in references]
        if len(value) + sum(map(len, parts)) > _MAX_VALUE_CHARS:
            continue
        said[name] = _REFERENCE.sub(lambda found: said.get(found[1], found[2]), value)
    return said, [name for name in unresolved if is_own_name(name)]


def _decide(said: Mapping[str, str]) -> _Decision:
    decision = _Decision()
    said = {name: value for name, value in _with_lm_key(said).items() if value.strip()}
    for group in (LANGFUSE, LM):
        _decide_group(group, said, decision)
    for name in filter(is_own_name, said):
        if name in PROJECT_NAMES:
            if name not in os.environ:
                decision.taken[name] = said[name]
        elif name not in (*LANGFUSE.names, *LM.names) and name not in os.environ:
            decision.ignored.append(name)
    return decision


def _decide_group(group: Group, said: Mapping[str, str], decision: _Decision) -> None:
    """Take the file's part of a group when it is the only one that says something, else withhold it."""
    theirs = {role: name for role in group.roles for name in reversed(role) if name in said}
    own = {role: os.environ[name] for role in group.roles for name in reversed(role) if name in os.environ}
    if not own.get(group.address, "").strip():
        own.pop(group.address, None)
    missing = [role for role in theirs if role not in own]
    if not missing:
        return
    is_all_theirs = all(role in theirs and said[theirs[role]] == value for role, value in own.items())
    if not is_all_theirs:
        decision.withheld += [theirs[role] for role in missing]
        return
    decision.taken |= {name: said[name] for name in theirs.values()}
    # Without keys there is nothing to send to Langfuse, and those that are set later are not the file's.
    if group is LANGFUSE and group.address in theirs and not all(role in theirs for role in group.keys):
        del decision.taken[theirs[group.address]]
        decision.withheld.append(theirs[group.address])


def _check_mask(path: Path, patterns: str) -> None:
    """Refuse an expression that may never end: to go on without it would record what it is to hide."""
    if _REPEATED_GROUP.search(patterns):
        raise ConfigError(
            f"{_MASK} of {str(path)!r} repeats a group without end, which can hold up every cell. Write it "
            "without (...)+ and (...)*, or, when you have read the file and trust it: " + trust_command(path)
        )


def _problems(path: Path, ignored: list[str], unresolved: list[str]) -> tuple[str, ...]:
    trust = f"when you have read the file and trust it: {trust_command(path)}"
    problems = []
    if ignored:
        problems.append(
            f"{', '.join(ignored)} of {str(path)!r} is ignored: only you can say what moves data or takes a "
            f"protection away. Set it in your environment, or, {trust}"
        )
    if unresolved:
        problems.append(
            f"{', '.join(unresolved)} of {str(path)!r} is ignored: it takes in a variable that is not set "
            f"there. Write the value into the file, or, {trust}"
        )
    return tuple(problems)

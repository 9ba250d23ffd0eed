"""What the user has said of files and addresses that come from somebody else.

Owns the notes of trusted file contents, who can have written a file, and whether a secret may travel in the
clear; reads no configuration itself. Invariant: nothing that a project's own files say is an answer here;
only the user's environment and folder count.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from platformdirs import user_config_path

from research_kit.config import LOOPBACK_NAMES, owner_id
from research_kit.errors import ConfigError
from research_kit.sources import trust_command

__all__ = [
    "PLAIN_HTTP_VARIABLE",
    "TRUST_VARIABLE",
    "TrustedFile",
    "check_transport",
    "forget_trust",
    "is_loopback",
    "is_trusted",
    "list_trusted",
    "read_own_file",
    "trust_file",
    "unusable_trust_places",
]

# Folders and files, separated as in PATH, whose contents need no question; for continuous integration.
TRUST_VARIABLE = "RESEARCH_KIT_TRUST"
# Host names, separated by commas, that may get a secret over http.
PLAIN_HTTP_VARIABLE = "RESEARCH_KIT_PLAIN_HTTP"

_PLAIN_ADDRESS = re.compile(
    r"https?://(?P<host>[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9_-])?|\[[0-9A-F:.]+\])(?::[0-9]*)?(?:[/?#][\x21-\x5B\x5D-\x7E]*)?",
    re.IGNORECASE | re.ASCII,
)
_MAX_LINKS = 8
_MAX_FILE_BYTES = 10_000_000
_MAX_NOTE_BYTES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedFile:
    """A file whose content the user has trusted.

    Attributes:
        path: Where it lies.
        time: When that was said, as ISO 8601 in UTC.
    """

    path: Path
    time: str


def is_trusted(path: Path, content: bytes, *, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user has trusted the file ``path`` with just this content."""
    place = _place(path)
    if any(place == named or named in place.parents for named in _named_places(environ)):
        return True
    note = _read_note(_note_path(place))
    return note.get("path") == str(place) and note.get("content") == _fingerprint(content)


def trust_file(path: Path, content: bytes) -> None:
    """Note that the user trusts ``path`` with this content, until it changes.

    Raises:
        ConfigError: When the note cannot be written, or would not be believed afterwards.
    """
    place = _place(path)
    note = _note_path(place)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write_note(note, {"path": str(place), "content": _fingerprint(content), "time": now})
    if _read_note(note).get("path") != str(place):
        raise ConfigError(
            f"What you trust cannot be kept in {str(note.parent)!r}: others could write there too. Give the "
            f"folder to yourself alone, or name {str(place)!r} in {TRUST_VARIABLE}."
        )


def forget_trust(path: Path) -> bool:
    """Take back what was said of ``path``; False when it was not trusted.

    Raises:
        ConfigError: When the note cannot be removed.
    """
    note = _note_path(_place(path))
    try:
        note.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"Cannot remove {str(note)!r}: {error.strerror}. Remove it yourself.") from error
    return True


def list_trusted() -> list[TrustedFile]:
    """Return the files that were trusted one by one, in the order of their paths."""
    notes = map(_read_note, _notes_folder().glob("*.json"))
    files = [
        TrustedFile(path=Path(note["path"]), time=note.get("time", "")) for note in notes if "path" in note
    ]
    return sorted(files, key=lambda file: file.path)


def unusable_trust_places(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the parts of RESEARCH_KIT_TRUST that count for nothing, because they are not absolute paths."""
    return [part for part, place in _trust_variable(environ) if place is None]


def read_own_file(path: Path) -> bytes:
    """Return the content of ``path`` when nobody but the user, or root, can have written it.

    Judged are the open file that is then read, each link that leads to it, and the folders that these lie in.
    A file that the user has trusted with this content may be anybody's.

    Raises:
        ConfigError: When others can have written it, or it cannot be read.
    """
    try:
        content, fault = _read_judged(path)
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigError(f"Cannot read {str(path)!r}: {cause}. Check the file, or remove it.") from error
    if fault and not is_trusted(path, content):
        raise ConfigError(
            f"{str(path)!r} is not read, because {fault}. Let only yourself write there (chown, chmod go-w), "
            f"or, when you have read the file and trust it: {trust_command(path)}"
        )
    return content


def _read_judged(path: Path) -> tuple[bytes, str]:
    """Return what ``path`` holds, and why somebody else can have written it; empty when nobody can."""
    if owner_id() is None:
        return path.read_bytes(), ""
    descriptor, faults = _open_judged(path.absolute())
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {_MAX_FILE_BYTES} bytes")
    return content, next(filter(None, (*faults, _fault("it", found))), "")


def _open_judged(path: Path) -> tuple[int, list[str]]:
    """Open what ``path`` leads to, one link after the other, and judge the folders and links on the way."""
    faults = []
    for _ in range(_MAX_LINKS):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            faults.append(_fault("its folder", os.fstat(folder)))
            try:
                # A pipe in its place would otherwise wait for a writer.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                return os.open(path.name, flags, dir_fd=folder), faults
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EMLINK):
                    raise
            faults.append(_fault("the link to it", os.lstat(path.name, dir_fd=folder)))
            path = path.parent / os.readlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
    raise OSError(errno.ELOOP, "too many links lead to it")


def _fault(what: str, found: os.stat_result) -> str:
    """Say why somebody else can write a file or folder; empty when nobody can."""
    if found.st_uid not in (owner_id(), 0):
        return f"{what} belongs to another user (id {found.st_uid})"
    # A link's own mode says nothing; in a sticky folder others can only make files of their own.
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return f"everybody can write {what}"
    if found.st_mode & stat.S_IWGRP and not _is_alone_in(found.st_gid):
        return f"the group {found.st_gid} can write {what}"
    return ""


def _is_alone_in(group_id: int) -> bool:
    """Whether a group is the user's own, as where every user has one and new files are writable for it."""
    import grp
    import pwd

    # Containers run any number of users in group 0, without entering them anywhere.
    if group_id == 0:
        return False
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(group_id)
    except KeyError:
        return False
    members = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == group_id}
    # Directories of users on the network are not listed; there only the name tells.
    is_known = user.pw_name in members or group.gr_name == user.pw_name
    return user.pw_gid == group_id and is_known and members | set(group.gr_mem) <= {user.pw_name}


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine: an address of the loopback interface, or a name below localhost.

    Only addresses that every client reads alike count: no user, no dot at the end, nothing but ASCII.
    """
    host = _plain_host(url)
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_transport(url: str, *, secret: str, environ: Mapping[str, str] | None = None) -> None:
    """Return when a secret may go to ``url``: encrypted, on this machine, or where the user has said so.

    Args:
        url: Where it would go.
        secret: What would go there, in words: ``"LANGFUSE_SECRET_KEY"``.
        environ: Where the user says so, and names proxies; by default the process environment.

    Raises:
        ConfigError: When it would travel in the clear.
    """
    if url[:8].lower() == "https://":
        return
    env = os.environ if environ is None else environ
    host = _plain_host(url)
    allowed = {part.strip().lower() for part in env.get(PLAIN_HTTP_VARIABLE, "").split(",")}
    if host is not None and (host in allowed or (is_loopback(url) and not _may_leave(host, env))):
        return
    remedy = "Use https"
    if host is not None:
        remedy += (
            f", or, when you trust the network between, set {PLAIN_HTTP_VARIABLE}={host} in your environment"
        )
    raise ConfigError(
        f"{secret} would go to {url!r} unencrypted, where everybody on the way can read it. {remedy}."
    )


def _plain_host(url: str) -> str | None:
    """Return the host of an http address that all clients read alike, in lower case; None for any other."""
    found = _PLAIN_ADDRESS.fullmatch(url)
    return found["host"].strip("[]").lower() if found else None


def _may_leave(host: str, environ: Mapping[str, str]) -> bool:
    """Whether a proxy may get what is sent to a host of this machine; the usual names are kept from it."""
    is_proxied = any(environ.get(name) or environ.get(name.upper()) for name in ("http_proxy", "all_proxy"))
    return is_proxied and host not in LOOPBACK_NAMES


def _named_places(environ: Mapping[str, str] | None) -> set[Path]:
    places = [place for _, place in _trust_variable(environ) if place is not None]
    return {form for place in places for form in (_place(place), place.resolve())}


def _trust_variable(environ: Mapping[str, str] | None) -> list[tuple[str, Path | None]]:
    env = os.environ if environ is None else environ
    return [(part, _absolute(part)) for part in env.get(TRUST_VARIABLE, "").split(os.pathsep) if part]


def _absolute(text: str) -> Path | None:
    """Return a path that means the same everywhere; "." would trust whatever folder a kernel starts in."""
    try:
        path = Path(text).expanduser()
        path.resolve()
    except (RuntimeError, ValueError, OSError):  # no such home, a zero byte, links in a circle
        return None
    return path if path.is_absolute() else None


def _place(path: Path) -> Path:
    """Return where the file lies. A link is not followed: what it says is said in its own folder."""
    whole = path.absolute()
    return whole.parent.resolve() / whole.name


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _notes_folder() -> Path:
    # Not in RESEARCH_KIT_DATA_DIR, which may lie in a project; nor in a folder below wherever we are.
    folder = user_config_path("research-kit")
    return (folder if folder.is_absolute() else Path.home() / ".config" / "research-kit") / "trusted"


def _note_path(place: Path) -> Path:
    # A note of its own for each file: writers never meet, and a broken note concerns one file.
    return _notes_folder() / f"{hashlib.sha256(os.fsencode(place)).hexdigest()}.json"


def _read_note(path: Path) -> dict[str, str]:
    """Return what a note says; nothing when it is none, or when somebody else could have written it."""
    try:
        with open(path, "rb", opener=_open_without_links) as file:
            status = os.fstat(file.fileno())
            is_own = owner_id() in (None, status.st_uid) and (os.name == "nt" or not status.st_mode & 0o022)
            note = json.loads(file.read(_MAX_NOTE_BYTES)) if is_own and stat.S_ISREG(status.st_mode) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    is_note = isinstance(note, dict) and all(isinstance(value, str) for value in note.values())
    return note if is_note else {}


def _open_without_links(path: str, flags: int) -> int:
    # Without waiting: a pipe of that name would hold the kernel up.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _write_note(path: Path, note: Mapping[str, str]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written aside and put in place, so that nobody ever reads half a note.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(note, file)
        Path(file.name).replace(path)
    except OSError as error:
        raise ConfigError(
            f"Cannot write {str(path)!r}: {error.strerror}. Correct the permissions of its folder."
        ) from error

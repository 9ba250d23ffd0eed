"""Folders and files that belong to the user of this process alone.

Owns the checks of owner, rights and links; knows no file by name. Invariant: what is opened or returned here
belongs to this user, and nobody else can read it, write it or put another thing in its place. Windows, where
files carry no such numbers, leaves this to the user's profile.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import warnings
from pathlib import Path

from research_kit.errors import ConfigError

__all__ = [
    "claim_file",
    "foreign_cause",
    "is_exposed",
    "open_private",
    "owner_id",
    "private_directory",
    "set_aside",
]

_OTHERS = 0o077
_WRITABLE = 0o022
# Where nothing says otherwise: a link is not followed, and a pipe in the place of a file holds nobody up.
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def owner_id() -> int | None:
    """Return the number of the user whom new files belong to; None on Windows, where they carry none."""
    return os.getuid() if hasattr(os, "getuid") else None


def private_directory(path: Path, *, purpose: str) -> Path:
    """Return ``path`` as an existing folder that only its owner can enter.

    A folder of this user that others can enter is closed to them, with a warning.

    Raises:
        ConfigError: When the folder cannot be created, read or written, or is somebody else's.
    """
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                folder.mkdir(exist_ok=True, mode=0o700)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if owner_id() is not None:
            _close_to_others(path, purpose)
    except OSError as error:
        raise _unusable(path, purpose, error.strerror or str(error)) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(path, purpose, "it is not readable and writable")
    return path


def _close_to_others(path: Path, purpose: str) -> None:
    known = path.stat()
    if known.st_uid != owner_id():
        raise _unusable(path, purpose, f"it belongs to another user ({_name_of(known.st_uid)})")
    if known.st_mode & _OTHERS:
        if known.st_mode & stat.S_ISVTX:
            raise _unusable(path, purpose, "it is a folder that all users share")
        path.chmod(0o700)
        warnings.warn(
            f"The folder for {purpose}, {str(path)!r}, was open to other users (mode "
            f"{stat.S_IMODE(known.st_mode):o}) and is now closed to them.",
            stacklevel=4,
        )
    if known.st_mode & _WRITABLE:
        for entry in path.iterdir():
            if entry.lstat().st_uid != owner_id():
                set_aside(entry, "another user has put it there")
    for above in (path, *path.absolute().parents):
        _check_above(above, path, purpose)


def _check_above(above: Path, path: Path, purpose: str) -> None:
    """Look at a folder, or a link, on the way to ``path``: who can write it can swap what it holds."""
    known = above.lstat()
    is_foreign = known.st_uid not in (0, owner_id())
    if stat.S_ISLNK(known.st_mode):
        if is_foreign:
            raise _unusable(path, purpose, f"{str(above)!r} is a link that another user has made")
        return
    is_open = bool(known.st_mode & stat.S_IWOTH) and not known.st_mode & stat.S_ISVTX
    if is_foreign or is_open:
        who = _name_of(known.st_uid) if is_foreign else "every user"
        warnings.warn(
            f"{who} of this machine can replace the folder for {purpose}, {str(path)!r}, because "
            f"{str(above)!r} is theirs to write. Correct its permissions, or choose another place.",
            stacklevel=5,
        )


def _unusable(path: Path, purpose: str, cause: str) -> ConfigError:
    return ConfigError(
        f"Cannot use {str(path)!r} as the folder for {purpose}: {cause}. "
        "Correct its permissions, or set RESEARCH_KIT_DATA_DIR to a folder that you can write."
    )


def _name_of(user_id: int) -> str:
    import pwd  # Windows has none

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"


def foreign_cause(path: Path) -> str:
    """Say why ``path`` is no plain file of this user's own; empty when it is one, or missing."""
    try:
        known = path.lstat()
    except FileNotFoundError:
        return ""
    return _cause(known)


def _cause(known: os.stat_result) -> str:
    if stat.S_ISLNK(known.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISREG(known.st_mode):
        return "it is no file"
    if owner_id() not in (None, known.st_uid):
        return f"it belongs to another user ({_name_of(known.st_uid)})"
    return "it is a second name of another file" if known.st_nlink > 1 else ""


def is_exposed(path: Path) -> bool:
    """Whether other users may read or write the file ``path``."""
    return owner_id() is not None and bool(path.stat().st_mode & _OTHERS)


def claim_file(path: Path) -> str:
    """Close the file to other users; return why it is no file of this user's own, else an empty text."""
    cause = foreign_cause(path)
    if not cause and path.exists() and is_exposed(path):
        path.chmod(0o600)
    return cause


def set_aside(path: Path, cause: str) -> None:
    """Move what is not to be used out of the way, with a warning."""
    target = path.with_name(f"{path.name}.aside-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
    path.rename(target)
    warnings.warn(f"{str(path)!r} is not used, because {cause}. It is now {target.name!r}.", stacklevel=3)


def open_private(path: Path, flags: int) -> int:
    """Open a file of this user's own that nobody else can use, and return its descriptor.

    Raises:
        OSError: When it cannot be opened, or is a link or somebody else's.
    """
    opened = os.open(path, flags | _CAREFUL, 0o600)
    try:
        known = os.fstat(opened)
        cause = _cause(known)
        if cause:
            raise PermissionError(errno.EPERM, cause, str(path))
        if owner_id() is not None and known.st_mode & _OTHERS:
            os.fchmod(opened, 0o600)
    except OSError:
        os.close(opened)
        raise
    return opened

"""A file of the project is read only when nobody but its user can have written it."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from research_kit.errors import ConfigError
from research_kit.trust import read_own_file, trust_file

_NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


def own_file(folder: Path) -> Path:
    folder.mkdir(mode=0o755)
    path = folder / ".env"
    path.write_bytes(b"A=1")
    path.chmod(0o600)
    return path


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _to_foreign(path: Path) -> None:
    theirs = path.parent / "theirs"
    theirs.write_bytes(b"A=1")
    os.chown(theirs, _NOBODY, _NOBODY)
    _link(path, theirs)


def _to_open_folder(path: Path) -> None:
    folder = path.parent / "open"
    folder.mkdir()
    (folder / "x").write_bytes(b"A=1")
    folder.chmod(0o777)
    _link(path, Path("open/x"))


def _foreign_link(path: Path) -> None:
    own = path.parent / "own"
    own.write_bytes(b"A=1")
    _link(path, own)
    os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "world writable": (lambda path: path.chmod(0o646), "everybody can write it"),
    "writable for a shared group": (lambda path: path.chmod(0o660), "the group 0 can write it"),
    "in a world writable folder": (lambda path: path.parent.chmod(0o777), "everybody can write its folder"),
    "in a folder of a shared group": (lambda path: path.parent.chmod(0o775), "the group 0 can write its"),
    "link into an open folder": (_to_open_folder, "everybody can write its folder"),
    "somebody else's": (lambda path: os.chown(path, _NOBODY, 0), r"it belongs to another user \(id 65534\)"),
    "in somebody else's folder": (lambda path: os.chown(path.parent, _NOBODY, 0), "its folder belongs to"),
    "in somebody else's sticky folder": (
        lambda path: (os.chown(path.parent, _NOBODY, 0), path.parent.chmod(0o1777)),
        "its folder belongs to",
    ),
    "link to somebody else's": (_to_foreign, "it belongs to another user"),
    "somebody else's link": (_foreign_link, "the link to it belongs to another user"),
}


@needs_root
@pytest.mark.parametrize("case", FAULTS)
def test_what_others_can_write_is_not_read(tmp_path: Path, case: str) -> None:
    """A file is refused with the reason and the remedy, whoever can have written it, and how."""
    spoil, reason = FAULTS[case]
    path = own_file(tmp_path / "project")
    spoil(path)
    with pytest.raises(ConfigError, match=rf"\.env' is not read, because {reason}.*research-kit trust"):
        read_own_file(path)


@pytest.mark.parametrize("case", ["world writable", "in a world writable folder"])
def test_what_everybody_can_write_is_not_read(tmp_path: Path, case: str) -> None:
    """The same holds for every user of the machine, root or not."""
    spoil, reason = FAULTS[case]
    path = own_file(tmp_path / "project")
    spoil(path)
    with pytest.raises(ConfigError, match=reason):
        read_own_file(path)


def _in_sticky_folder(path: Path) -> None:
    path.parent.chmod(0o1777)


def _own_link(path: Path) -> None:
    own = path.parent / "own"
    own.write_bytes(b"A=1")
    _link(path, Path("own"))


@pytest.mark.parametrize("prepare", [lambda path: None, _in_sticky_folder, _own_link])
def test_own_files_are_read(tmp_path: Path, prepare: Callable[[Path], object]) -> None:
    """A file of one's own is read, also through a link of one's own and in a folder as /tmp is."""
    path = own_file(tmp_path / "project")
    prepare(path)
    assert read_own_file(path) == b"A=1"


@needs_root
def test_trusted_content_may_be_anybodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has read and trusted is read whoever owns it, until a byte changes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = own_file(tmp_path / "project")
    os.chown(path, _NOBODY, _NOBODY)
    trust_file(path, b"A=1")
    assert read_own_file(path) == b"A=1"
    path.write_bytes(b"A=2")
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_own_file(path)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
        (lambda path: _link(path, path), "too many links"),
        (lambda path: _link(path, Path("/dev/zero")), "not a regular file"),
        (lambda path: path.write_bytes(b"A" * 10_000_001), "more than 10000000 bytes"),
    ],
    ids=["missing", "pipe", "folder", "link to itself", "device", "huge"],
)
def test_what_is_no_file_is_an_error_and_never_a_wait(
    tmp_path: Path, make: Callable[[Path], object], cause: str
) -> None:
    """Whatever stands in the file's place, reading it ends with an error that says what it is."""
    path = own_file(tmp_path / "project")
    make(path)
    with pytest.raises(ConfigError, match=rf"Cannot read .*\.env': .*{cause}"):
        read_own_file(path)


_AS_ANOTHER = """
import grp, os, pwd, sys
from pathlib import Path
from research_kit.trust import read_own_file
if os.getuid() == 0:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[1]))
os.umask(0o002)
Path("project").mkdir()
path = Path("project", ".env")
path.write_bytes(b"A=1")
print(oct(path.stat().st_mode & 0o777), read_own_file(path))
"""


def _user_with_own_group() -> pwd.struct_passwd:
    names = {group.gr_gid: group.gr_name for group in grp.getgrall() if not group.gr_mem}
    wanted = [os.getuid()] if os.getuid() else [user.pw_uid for user in pwd.getpwall() if user.pw_uid]
    users = [pwd.getpwuid(user_id) for user_id in wanted]
    return next(user for user in users if names.get(user.pw_gid) == user.pw_name)


def test_file_of_the_users_own_group_is_read() -> None:
    """Where every user has a group of his own, new files are writable for it, and nobody else is in it."""
    user = _user_with_own_group()
    # Others cannot enter the folders of pytest.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        run = subprocess.run(
            [sys.executable, "-c", _AS_ANOTHER, str(user.pw_uid), str(user.pw_gid)],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert run.stdout.split() == ["0o664", "b'A=1'"], run.stderr

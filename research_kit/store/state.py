"""The small files beside the database: who may ask, and where the running server listens.

Owns the names and formats of the files in the data directory; starts nothing and opens no connection.
Invariant: every file is written whole or not at all, only its owner can read it, and what somebody else has
put in its place is not used.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from research_kit.errors import StoreError
from research_kit.private import (
    claim_file,
    foreign_cause,
    is_exposed,
    open_private,
    private_directory,
    set_aside,
)

__all__ = [
    "Credentials",
    "Listening",
    "StorePaths",
    "existing_paths",
    "load_or_create_credentials",
    "open_data_dir",
    "read_credentials",
    "read_listening",
    "write_listening",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePaths:
    """Where everything of one store lies.

    Attributes:
        data_dir: The folder.
        database: The SQLite file.
        credentials: Key pair and project id of this installation.
        listening: Process id and address of the running server.
        socket: The Unix socket of the running server, where the folder can have one.
        start_lock: Held while somebody starts the server.
        server_lock: Held by the server process for as long as it lives.
        log: What the server process wrote to its standard streams.
    """

    data_dir: Path
    database: Path
    credentials: Path
    listening: Path
    socket: Path
    start_lock: Path
    server_lock: Path
    log: Path

    @classmethod
    def of(cls, data_dir: Path) -> StorePaths:
        """Name the files of the store in ``data_dir``."""
        return cls(
            data_dir=data_dir,
            database=data_dir / "store.db",
            credentials=data_dir / "store-keys.json",
            listening=data_dir / "store-server.json",
            socket=data_dir / "store.sock",
            start_lock=data_dir / "store-start.lock",
            server_lock=data_dir / "store-server.lock",
            log=data_dir / "store.log",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The key pair and the project of one installation."""

    public_key: str
    secret_key: str
    project_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The address of a server process.

    Attributes:
        pid: Its process id.
        port: The port on the loopback interface.
        version: The version of research-kit that it runs.
        is_stopped: True in the note that an ended server leaves, so that the next one takes the same port.
        socket_path: The Unix socket, which only its user can open; None where there are none.
        former_port: The port of the server before, when another program has it now.
    """

    pid: int
    port: int
    version: str
    is_stopped: bool = False
    socket_path: str | None = None
    former_port: int | None = None

    @property
    def base_url(self) -> str:
        """The address that clients use."""
        return f"http://127.0.0.1:{self.port}"


def open_data_dir(data_dir: Path) -> StorePaths:
    """Create the data directory when it is missing, close it to other users, and name its files.

    Raises:
        ConfigError: When the folder cannot be created, read or written, or is somebody else's.
        StoreError: When its database is somebody else's.
    """
    paths = _claimed(data_dir)
    for path in (paths.database, *(Path(f"{paths.database}{suffix}") for suffix in ("-wal", "-shm"))):
        if cause := claim_file(path):
            raise StoreError(
                f"Cannot use {str(path)!r} as the store's database: {cause}. Move it away to begin with an "
                "empty store, or put the file itself into the folder."
            )
    return paths


def existing_paths(data_dir: Path) -> StorePaths:
    """Name the files of a store that may not exist; creates nothing.

    Raises:
        ConfigError: When the folder exists and cannot be used.
    """
    return _claimed(data_dir) if data_dir.exists() else StorePaths.of(data_dir)


def _claimed(data_dir: Path) -> StorePaths:
    """Close the folder and its small files to other users; what is not this user's is moved aside."""
    paths = StorePaths.of(private_directory(data_dir, purpose="the embedded store"))
    for path in (paths.listening, paths.start_lock, paths.server_lock, paths.log):
        if cause := claim_file(path):
            set_aside(path, cause)
    return paths


def load_or_create_credentials(paths: StorePaths) -> Credentials:
    """Read the key pair, making one at the first call. The caller holds the start lock or the server lock.

    Raises:
        StoreError: When the file exists and is not readable.
    """
    existing = read_credentials(paths)
    if existing is not None:
        return existing
    public_key, project_id = f"pk-lf-{uuid.uuid4()}", f"local-{secrets.token_hex(8)}"
    cause = foreign_cause(paths.credentials)
    if not cause and paths.credentials.exists():
        # Other users may know this secret; what waits under the public key still finds its way.
        cause, known = "other users could read or write it", _as_credentials(paths.credentials)
        public_key, project_id = known.public_key, known.project_id
    if cause:
        set_aside(paths.credentials, f"{cause}. A new key pair is made")
    created = Credentials(public_key=public_key, secret_key=f"sk-lf-{uuid.uuid4()}", project_id=project_id)
    _write_private(paths.credentials, asdict(created))
    return created


def read_credentials(paths: StorePaths) -> Credentials | None:
    """Read the key pair; None when there is none yet, or none that is surely this user's secret.

    Raises:
        StoreError: When the file exists and is not readable.
    """
    path = paths.credentials
    if not path.exists() or foreign_cause(path) or is_exposed(path):
        return None
    return _as_credentials(path)


def _as_credentials(path: Path) -> Credentials:
    try:
        return Credentials(**(_read_json(path) or {}))
    except TypeError as error:
        raise _unreadable(path, "it is not the key file of a store") from error


def read_listening(paths: StorePaths) -> Listening | None:
    """Read where the last server said that it listens; None when the note is missing or unusable."""
    try:
        content = _read_json(paths.listening)
        return None if content is None else Listening(**content)
    except (StoreError, TypeError):
        # The note only saves work: without it the server lock still tells whether a server is running.
        return None


def write_listening(paths: StorePaths, listening: Listening) -> None:
    """Leave the note from which clients learn the address."""
    _write_private(paths.listening, asdict(listening))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with os.fdopen(open_private(path, os.O_RDONLY), encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict):
        raise _unreadable(path, "it holds no JSON object")
    return content


def _unreadable(path: Path, cause: str) -> StoreError:
    return StoreError(
        f"Cannot read {str(path)!r}: {cause}. Restore the file; or, to begin anew, move the whole folder "
        f"{str(path.parent)!r} away."
    )


def _write_private(path: Path, content: dict[str, object]) -> None:
    # mkstemp makes the file 0600; the rename lets readers see the old or the new content, never half of one.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)

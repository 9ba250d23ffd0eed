"""What the user has said of files and addresses that come from somebody else.

Owns the list of trusted file contents, and whether a secret may travel in the clear; reads no configuration
itself. Invariant: nothing that a project's own files say is an answer here; only the user's environment and
folder count.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_config_path

from research_kit.config import private_directory
from research_kit.errors import ConfigError

__all__ = [
    "PLAIN_HTTP_VARIABLE",
    "TRUST_VARIABLE",
    "check_transport",
    "forget_trust",
    "is_loopback",
    "is_trusted",
    "trust_file",
]

# Folders and files, separated as in PATH, whose contents need no question; for continuous integration.
TRUST_VARIABLE = "RESEARCH_KIT_TRUST"
# Host names, separated by commas, that may get a secret over http.
PLAIN_HTTP_VARIABLE = "RESEARCH_KIT_PLAIN_HTTP"


def is_trusted(path: Path, content: bytes, *, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user has trusted the file ``path`` with just this content."""
    env = os.environ if environ is None else environ
    resolved = path.resolve()
    named = [
        Path(part).expanduser().resolve() for part in env.get(TRUST_VARIABLE, "").split(os.pathsep) if part
    ]
    if any(resolved == place or place in resolved.parents for place in named):
        return True
    return _fingerprint(resolved, content) in _read_list()


def trust_file(path: Path, content: bytes) -> None:
    """Note that the user trusts ``path`` with this content, until it changes.

    Raises:
        ConfigError: When the list of trusted files cannot be written.
    """
    resolved = path.resolve()
    known = {key: entry for key, entry in _read_list().items() if entry.get("path") != str(resolved)}
    known[_fingerprint(resolved, content)] = {
        "path": str(resolved),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_list(known)


def forget_trust(path: Path) -> bool:
    """Take back what was said of ``path``; False when it was not trusted.

    Raises:
        ConfigError: When the list of trusted files cannot be written.
    """
    before = _read_list()
    known = {key: entry for key, entry in before.items() if entry.get("path") != str(path.resolve())}
    if len(known) == len(before):
        return False
    _write_list(known)
    return True


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine: an address of the loopback interface, or a name below localhost."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_transport(url: str, *, secret: str, environ: Mapping[str, str] | None = None) -> None:
    """Return when a secret may go to ``url``: encrypted, on this machine, or where the user has said so.

    Args:
        url: Where it would go.
        secret: What would go there, in words: ``"LANGFUSE_SECRET_KEY"``.
        environ: Where the user says so; by default the process environment.

    Raises:
        ConfigError: When it would travel in the clear.
    """
    if not url.lower().startswith("http:") or is_loopback(url):
        return
    env = os.environ if environ is None else environ
    host = (urlsplit(url).hostname or "").lower()
    if host in {part.strip().lower() for part in env.get(PLAIN_HTTP_VARIABLE, "").split(",")}:
        return
    raise ConfigError(
        f"{secret} would go to {url!r} unencrypted, where everybody on the way can read it. Use https, or, "
        f"when you trust the network between, set {PLAIN_HTTP_VARIABLE}={host} in your environment."
    )


def _fingerprint(path: Path, content: bytes) -> str:
    return hashlib.sha256(os.fsencode(path) + b"\0" + content).hexdigest()


def _list_path() -> Path:
    # Not in RESEARCH_KIT_DATA_DIR, which may lie in a project.
    return user_config_path("research-kit") / "trusted.json"


def _read_list() -> dict[str, dict[str, str]]:
    try:
        content = json.loads(_list_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    entries = content if isinstance(content, dict) else {}
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def _write_list(entries: Mapping[str, Mapping[str, str]]) -> None:
    target = _list_path()
    folder = private_directory(target.parent, purpose="the list of trusted files")
    try:
        # Written aside and put in place, so that two processes never leave half a list.
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            json.dump(entries, file, indent=1)
        Path(file.name).replace(target)
    except OSError as error:
        raise ConfigError(
            f"Cannot write {str(target)!r}: {error}. Correct the permissions of its folder."
        ) from error

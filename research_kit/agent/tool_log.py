"""What a started program writes to standard error.

Owns the file and its bounds. Invariants: only the user can read it, it never grows beyond its size, and no
secret that is known as one is in it.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from research_kit.config import private_directory
from research_kit.masking import masked_text

__all__ = ["MAX_LOG_BYTES", "ToolLog", "read_log_end"]

MAX_LOG_BYTES = 1_000_000
_START = "--- started"
_TAIL_CHARACTERS = 500
_TAIL_BYTES = 8_000
_MAX_LINE_BYTES = 64_000


class ToolLog:
    """The log of one start; what the program said before it went away is kept.

    Args:
        path: Where it is written.

    Raises:
        ConfigError: When its folder cannot be used.
    """

    def __init__(self, path: Path) -> None:
        private_directory(path.parent, purpose="the error output of tool servers")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self.file = os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)
        path.chmod(0o600)  # one of an earlier release could be read by others
        self._rest = b""
        self.note(f"{_START} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    def note(self, text: str) -> None:
        """Write a line of our own."""
        self._put(f"{text}\n")

    def take(self, chunk: bytes) -> None:
        """Write what the program said, line by line: a secret cut in two would not be known as one."""
        lines, mark, self._rest = (self._rest + chunk).rpartition(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            lines, mark, self._rest = lines + mark + self._rest, b"\n", b""
        if lines or mark:
            self._put(masked_text((lines + mark).decode("utf-8", "replace")))

    def close(self) -> None:
        """Write the line that was not ended, and close the file."""
        if self._rest:
            self.take(b"\n")
        self.file.close()

    def _put(self, text: str) -> None:
        content = text.encode("utf-8", "replace")[-MAX_LOG_BYTES // 2 :]
        # On a full disk the program goes on, and its complaints are lost.
        with contextlib.suppress(OSError):
            if os.fstat(self.file.fileno()).st_size + len(content) > MAX_LOG_BYTES:
                self.file.truncate(0)
            self.file.write(content)


def read_log_end(path: Path) -> str:
    """Return the end of what the program said since its last start, without secrets."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    _, mark, last = text.rpartition(_START)
    said = last.partition("\n")[2] if mark else text
    return masked_text(said)[-_TAIL_CHARACTERS:].strip()

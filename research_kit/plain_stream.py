"""Standard error of a process of our own, made plain.

Owns what libraries write there: warnings, log messages, the traceback of a fault. Invariant: only whole lines
are passed on, each made plain.
"""

from __future__ import annotations

import io
import sys
import traceback
from types import TracebackType
from typing import TextIO

from research_kit.plain_text import plain_block

__all__ = ["guard_terminal"]


def guard_terminal() -> None:
    """Make standard error plain until this process ends; what a terminal cannot encode is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _PlainStream):
        sys.stderr = _PlainStream(sys.stderr)
    # The interpreter writes a traceback itself, past the stream.
    sys.excepthook = _print_fault


class _PlainStream(io.TextIOBase):
    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target.encoding

    def write(self, text: str) -> int:
        *lines, self._line = f"{self._line}{text}".split("\n")
        if lines:
            self._target.write(plain_block("\n".join([*lines, ""])))
        return len(text)

    def flush(self) -> None:
        if self._line:
            self.write("\n")  # the rest of a line could make a command of it
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()


def _print_fault(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write("".join(traceback.format_exception(kind, fault, trace)))

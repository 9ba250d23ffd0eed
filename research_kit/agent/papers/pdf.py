"""The text of a PDF, read in a process of its own: ``python -m research_kit.agent.papers.pdf FILE``.

Owns the limits of time and memory; does not cut the text. Invariant: whatever a file does to its reader, the
caller goes on after the deadline, with the pages that were read until then.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

from research_kit._optional import installation

__all__ = ["PdfError", "read_pdf_pages"]

_DEADLINE_S = 60.0
_MAX_MEMORY_BYTES = 3_000_000_000
_MAX_CHARACTERS = 20_000_000


class PdfError(Exception):
    """A PDF that gives no text, or only a part.

    Attributes:
        pages: The texts of the pages that could be read.
    """

    def __init__(self, reason: str, pages: list[str] | None = None) -> None:
        super().__init__(reason)
        self.pages = pages or []


def read_pdf_pages(path: Path, *, deadline_s: float = _DEADLINE_S) -> list[str]:
    """Return the text of each page.

    Raises:
        PdfError: When pypdf is not installed, the file is encrypted or broken, or reading takes too long.
    """
    if importlib.util.find_spec("pypdf") is None:
        raise PdfError(f"PDF files need pypdf; install it with: {installation('papers')}")
    command = [sys.executable, "-m", __name__, str(path)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        pages, _ = _read_lines(error.output or b"")
        raise PdfError(
            f"reading took longer than {deadline_s:g} s; {len(pages)} pages were read", pages
        ) from None
    pages, reason = _read_lines(done.stdout)
    if reason or done.returncode:
        raise PdfError(reason or "it is broken, or needs too much memory", pages)
    return pages


def _read_lines(output: bytes) -> tuple[list[str], str]:
    pages: list[str] = []
    for line in output.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            break  # the line that was being written at the deadline
        if "reason" in told:
            return pages, str(told["reason"])
        pages.append(str(told["page"]))
    return pages, ""


def _main(path: str) -> int:
    import pypdf

    logging.disable()
    _limit_memory()
    try:
        _tell_pages(pypdf.PdfReader(path))
    except Exception as error:  # noqa: BLE001 -- a broken file may raise anything; the parent is told in words
        _tell(reason=f"it is broken ({type(error).__name__})")
    return 0


def _tell_pages(reader: object) -> None:
    from pypdf import PdfReader

    assert isinstance(reader, PdfReader)
    if reader.is_encrypted and not reader.decrypt(""):
        _tell(reason="it is encrypted with a password")
        return
    count = 0
    for page in reader.pages:
        text = page.extract_text()
        count += len(text)
        if count > _MAX_CHARACTERS:
            _tell(reason="its text is too long; the pages before are read")
            return
        _tell(page=text)


def _tell(**told: str) -> None:
    # ASCII: a text with broken surrogates must not stop the writer.
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))

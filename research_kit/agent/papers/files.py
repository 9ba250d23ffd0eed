"""The documents of a folder, and their text in passages.

Owns which files are documents and how they are cut; keeps nothing. Invariant: no byte from outside the folder
is read, and a file that cannot be read is a reason in words, never an error.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from research_kit.agent.papers.pdf import PdfError, read_pdf_pages

__all__ = ["Document", "Passage", "UnreadableError", "find_documents", "read_passages"]

_MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".qmd", ".rmd"})
_TEXT = frozenset({".txt", ".text", ".rst", ".tex", ".org"})
_PDF = frozenset({".pdf"})
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages"})
_MAX_DOCUMENTS = 5_000
_MAX_TEXT_BYTES = 20_000_000
_MAX_PDF_BYTES = 300_000_000
_PASSAGE_CHARACTERS = 1_200
_WRAPPED_WORD = re.compile(r"(?<=\w)-\n(?=[a-zäöüéèß])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file of the folder.

    Attributes:
        name: Its path below the folder, with slashes; what citations say.
        path: Where it is.
        stamp: Changes when the file does.
    """

    name: str
    path: Path
    stamp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document, small enough to quote.

    Attributes:
        text: The text itself.
        heading: Headings above it, outermost first, separated by `` > ``; empty without any.
        page: Page of a PDF, from 1 on; None elsewhere.
        first_line: Line on which it begins, from 1 on; None in a PDF.
        last_line: Line on which it ends.
    """

    text: str
    heading: str = ""
    page: int | None = None
    first_line: int | None = None
    last_line: int | None = None


class UnreadableError(Exception):
    """A document that gives no text; the message says why.

    Attributes:
        passages: What could be read of it all the same.
    """

    def __init__(self, reason: str, passages: list[Passage] | None = None) -> None:
        super().__init__(reason)
        self.passages = passages or []


def find_documents(root: Path) -> list[Document]:
    """Return the documents below ``root``, ordered by name; hidden folders and links out of it are left out.

    Args:
        root: The folder, resolved.
    """
    found = sorted(_walk(root), key=lambda document: document.name)
    return found[:_MAX_DOCUMENTS]


def _walk(root: Path) -> Iterator[Document]:
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in _MARKDOWN | _TEXT | _PDF:
                continue
            document = _document(root, path)
            if document is not None:
                yield document


def _document(root: Path, path: Path) -> Document | None:
    try:
        status = path.stat()
        is_inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return None  # it went away, may not be looked at, or is a circle of links
    # Only plain files: reading a pipe or a device may never end.
    if not is_inside or not stat.S_ISREG(status.st_mode):
        return None
    name = path.relative_to(root).as_posix()
    if not name.isprintable():
        return None  # names with line breaks or broken bytes could pass for something else in a citation
    return Document(name=name, path=path, stamp=f"{status.st_size}-{status.st_mtime_ns}")


def read_passages(document: Document, root: Path) -> list[Passage]:
    """Return the passages of a document, in their order.

    Raises:
        UnreadableError: When it gives no text, or only a part of it.
    """
    try:
        # Again: between finding and reading, a file may have become a link.
        path = document.path.resolve(strict=True)
        if not path.is_relative_to(root):
            raise UnreadableError("it lies outside the folder")
        size = path.stat().st_size
        suffix = path.suffix.lower() if path.suffix.lower() in _PDF else document.path.suffix.lower()
        limit = _MAX_PDF_BYTES if suffix in _PDF else _MAX_TEXT_BYTES
        if size > limit:
            raise UnreadableError(f"it has {size // 1_000_000} MB; at most {limit // 1_000_000} are read")
        if suffix in _PDF:
            return _pdf_passages(path)
        text = _decoded(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise UnreadableError(f"it cannot be read ({error})") from error
    return _markdown_passages(text) if suffix in _MARKDOWN else list(_pieces(text.splitlines(), 1, ""))


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if b"\0" in content[:100_000]:
        raise UnreadableError("it is not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _pdf_passages(path: Path) -> list[Passage]:
    reason = ""
    try:
        pages = read_pdf_pages(path)
    except PdfError as error:
        pages, reason = error.pages, str(error)
    passages = [
        Passage(text=piece.text, page=number)
        for number, text in enumerate(pages, start=1)
        for piece in _pieces(_WRAPPED_WORD.sub("", text).splitlines(), 1, "")
    ]
    if not passages and not reason:
        reason = "no page has text; it may be a scan"
    if reason:
        raise UnreadableError(reason, passages)
    return passages


def _markdown_passages(text: str) -> list[Passage]:
    from markdown_it import MarkdownIt

    lines = text.splitlines()
    path: list[tuple[int, str]] = []
    passages: list[Passage] = []
    start = 0
    tokens = MarkdownIt("commonmark", {"maxNesting": 20}).parse(text.replace("\0", " "))
    for token, content in itertools.pairwise(tokens):
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        passages += _pieces(lines[start : token.map[0]], start + 1, _joined(path))
        level = int(token.tag[1])
        path = [*(part for part in path if part[0] < level), (level, content.content.strip())]
        start = token.map[0]
    passages += _pieces(lines[start:], start + 1, _joined(path))
    return passages


def _joined(path: list[tuple[int, str]]) -> str:
    return " > ".join(" ".join(title.split()) for _, title in path)


def _pieces(lines: list[str], first_line: int, heading: str) -> Iterator[Passage]:
    """Cut lines at blank ones into pieces of bounded length."""
    begin, size = 0, 0
    for position, line in enumerate(lines):
        is_full = size + len(line) > _PASSAGE_CHARACTERS and size > 0
        if is_full or (not line.strip() and size > _PASSAGE_CHARACTERS * 0.6):
            yield from _piece(lines, begin, position, first_line, heading)
            begin, size = position, 0
        size += len(line) + 1
    yield from _piece(lines, begin, len(lines), first_line, heading)


def _piece(lines: list[str], begin: int, end: int, first_line: int, heading: str) -> Iterator[Passage]:
    while begin < end and not lines[begin].strip():
        begin += 1
    while end > begin and not lines[end - 1].strip():
        end -= 1
    text = "\n".join(line.rstrip() for line in lines[begin:end])
    # A line without end: minified text, or a file whose line breaks got lost.
    for offset in range(0, len(text), 4 * _PASSAGE_CHARACTERS):
        yield Passage(
            text=text[offset : offset + 4 * _PASSAGE_CHARACTERS],
            heading=heading,
            first_line=first_line + begin,
            last_line=first_line + end - 1,
        )

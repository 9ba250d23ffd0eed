"""What the documents of a folder say, ready to be searched.

Owns an SQLite file with a full-text index in the cache folder; reads documents through `files`. Invariant: a
document that has not changed is read once, and what is found is what the index last read of the folder.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from research_kit.agent.papers.files import Document, Passage, UnreadableError, find_documents, read_passages
from research_kit.config import private_directory
from research_kit.errors import ResearchKitError

__all__ = ["FolderIndex", "Found", "Listed", "OnFile"]

OnFile = Callable[[int, int, str], None]

_VERSION = 1
_SCHEMA = """
CREATE TABLE documents (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE passages (
    passage_id INTEGER PRIMARY KEY, name TEXT NOT NULL, position INTEGER NOT NULL,
    heading TEXT NOT NULL, page INTEGER, first_line INTEGER, last_line INTEGER
);
CREATE INDEX passages_of ON passages (name, position);
CREATE VIRTUAL TABLE texts USING fts5 (
    text, heading, name, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""
# Of the columns text, heading and name: a heading names its passage in few words.
_RANK = "bm25(texts, 1.0, 2.0, 1.5)"
_SELECT = """
SELECT passages.name, position, text, passages.heading, page, first_line, last_line
FROM passages JOIN texts ON texts.rowid = passage_id
"""
_COMMON_WORDS = """
a about an and are as at be been but by can could did do does for from had has have how i if in into
is it its me my of on or say says should so than that the their them there these they this to was we
were what when where which who why will with would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_MAX_QUERY_WORDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A passage of the index.

    Attributes:
        name: The document's name.
        position: Number of the passage in its document, from 0 on.
        passage: The passage.
    """

    name: str
    position: int
    passage: Passage

    @property
    def citation(self) -> str:
        """Where it stands: the file, and the page or the heading and lines."""
        here = self.passage
        if here.page is not None:
            return f"{self.name}, page {here.page}"
        lines = (
            f"line {here.first_line}"
            if here.first_line == here.last_line
            else f"lines {here.first_line}-{here.last_line}"
        )
        return f'{self.name}, "{here.heading}", {lines}' if here.heading else f"{self.name}, {lines}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A document of the index; ``problem`` says why it, or a part of it, is missing."""

    name: str
    passage_count: int
    page_count: int | None
    problem: str


class FolderIndex:
    """The index of one folder.

    Args:
        root: The folder.
        directory: Where the index is kept; a temporary folder when that cannot be written.
    """

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root.resolve()
        file_name = f"{hashlib.sha256(str(self.root).encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.db"
        try:
            self._path = private_directory(directory, purpose="what was read of documents") / file_name
        except ResearchKitError:
            self._kept = tempfile.TemporaryDirectory(prefix="research-kit-papers-")
            self._path = Path(self._kept.name) / file_name
        self._refreshing = threading.Lock()
        self._prepare()

    def refresh(self, on_file: OnFile = lambda done, total, name: None) -> None:
        """Read what is new or changed, and forget what is gone.

        Args:
            on_file: Told how many of how many documents are read, and the name of the next.
        """
        with self._refreshing, self._connected() as connection:
            there = {document.name: document for document in find_documents(self.root)}
            known = dict(connection.execute("SELECT name, stamp FROM documents"))
            for name in known.keys() - there.keys():
                with connection:
                    _forget(connection, name)
            new = [document for document in there.values() if known.get(document.name) != document.stamp]
            for done, document in enumerate(new):
                on_file(done, len(new), document.name)
                self._read(connection, document)

    def search(self, query: str, limit: int) -> list[Found]:
        """Return the passages that fit best, best first; none when no word of ``query`` occurs."""
        terms = [word for word in re.findall(r"\w+", query.lower()) if word not in _COMMON]
        terms = terms or re.findall(r"\w+", query.lower())
        if not terms:
            return []
        # Quoted, so that no word is an operator of the query language.
        match = " OR ".join(f'"{term}"' for term in dict.fromkeys(terms[:_MAX_QUERY_WORDS]))
        with self._connected() as connection:
            rows = connection.execute(
                f"{_SELECT} WHERE texts MATCH ? ORDER BY {_RANK}, passage_id LIMIT ?", (match, limit)
            )
            return [_found(row) for row in rows]

    def read(self, name: str) -> list[Found]:
        """Return all passages of a document, in order; none when there is no such document."""
        with self._connected() as connection:
            return [
                _found(row)
                for row in connection.execute(f"{_SELECT} WHERE passages.name = ? ORDER BY position", (name,))
            ]

    def list_documents(self) -> list[Listed]:
        """Return all documents, ordered by name."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT documents.name, count(passage_id), max(page), problem FROM documents "
                "LEFT JOIN passages ON passages.name = documents.name GROUP BY documents.name ORDER BY 1"
            )
            return [
                Listed(name=name, passage_count=count, page_count=pages, problem=problem)
                for name, count, pages, problem in rows
            ]

    def _read(self, connection: sqlite3.Connection, document: Document) -> None:
        problem = ""
        try:
            passages = read_passages(document, self.root)
        except UnreadableError as error:
            problem, passages = str(error), error.passages
        with connection:
            _forget(connection, document.name)
            connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?)", (document.name, document.stamp, problem)
            )
            for position, passage in enumerate(passages):
                _add(connection, document.name, position, passage)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # One connection per use: searches and the reader are on threads of their own.
        with closing(sqlite3.connect(self._path, timeout=30.0)) as connection:
            yield connection

    def _prepare(self) -> None:
        try:
            with self._connected() as connection:
                if _has_this_version(connection):
                    return
        except sqlite3.DatabaseError:
            pass  # a broken file is made anew: everything in it can be read again
        self._path.unlink(missing_ok=True)
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


def _has_this_version(connection: sqlite3.Connection) -> bool:
    if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        return False
    return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")


def _forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(
        "DELETE FROM texts WHERE rowid IN (SELECT passage_id FROM passages WHERE name = ?)", (name,)
    )
    connection.execute("DELETE FROM passages WHERE name = ?", (name,))
    connection.execute("DELETE FROM documents WHERE name = ?", (name,))


def _add(connection: sqlite3.Connection, name: str, position: int, passage: Passage) -> None:
    # SQLite takes no half characters, which broken PDF files hold.
    text = passage.text.encode("utf-8", "replace").decode()
    added = connection.execute(
        "INSERT INTO passages (name, position, heading, page, first_line, last_line) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (name, position, passage.heading, passage.page, passage.first_line, passage.last_line),
    )
    connection.execute(
        "INSERT INTO texts (rowid, text, heading, name) VALUES (?, ?, ?, ?)",
        (added.lastrowid, text, passage.heading, name),
    )


def _found(row: tuple[str, int, str, str, int | None, int | None, int | None]) -> Found:
    name, position, text, heading, page, first_line, last_line = row
    passage = Passage(text=text, heading=heading, page=page, first_line=first_line, last_line=last_line)
    return Found(name=name, position=position, passage=passage)

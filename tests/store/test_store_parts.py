"""The small parts: schema, hash, numbers, times, words."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from research_kit.errors import StoreError
from research_kit.store.database import MIGRATIONS, Database
from research_kit.store.jsontext import compact, number_text, parse_or_none, parse_or_text
from research_kit.store.observation_row import COLUMNS
from research_kit.store.times import is_full_iso, iso_to_ms, ms_to_iso
from research_kit.store.usage import read_usage
from research_kit.store.word_search import has_words
from research_kit.store.xxhash32 import xxhash32


def _schema(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return list(found)


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_every_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    """A database of any released schema ends with the same schema as a new one."""
    old = sqlite3.connect(tmp_path / "old.db")
    for migration in MIGRATIONS[:version]:
        old.executescript(migration)
    old.execute(f"PRAGMA user_version = {version}")
    old.close()
    for name in ("old.db", "new.db", "new.db"):
        Database(tmp_path / name).close()
    assert _schema(tmp_path / "old.db") == _schema(tmp_path / "new.db")


def test_table_has_the_columns_of_a_row(tmp_path: Path) -> None:
    """Rows and table name the same columns in the same order."""
    database = Database(tmp_path / "store.db")
    with database.reading() as connection:
        found = [row[1] for row in connection.execute("PRAGMA table_info(observations)")]
    database.close()
    assert sorted(found) == sorted(COLUMNS)


def test_readers_go_on_while_a_batch_is_open(tmp_path: Path) -> None:
    """A reader sees the last committed state while a writer is in the middle of its batch."""
    database = Database(tmp_path / "store.db")
    count = "SELECT count(*) FROM scores"
    with database.writing() as writer:
        writer.execute("INSERT INTO scores VALUES ('a','','','','','','','','','','','','',1,1,1)")
        with database.reading() as reader:
            assert reader.execute(count).fetchone() == (0,)
    with database.reading() as reader:
        assert reader.execute(count).fetchone() == (1,)
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is not touched."""
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match=r"schema 99.*Upgrade research-kit"):
        Database(tmp_path / "store.db")


def test_failed_batch_is_undone(tmp_path: Path) -> None:
    """An error inside a batch leaves nothing of it behind."""
    database = Database(tmp_path / "store.db")

    def write_half() -> None:
        with database.writing() as connection:
            connection.execute("INSERT INTO scores VALUES ('a','','','','','','','','','','','','',1,1,1)")
            connection.execute("INSERT INTO absent VALUES (1)")

    with pytest.raises(sqlite3.Error, match="no such table"):
        write_half()
    with database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x02CC5D05),
        (b"a", 0x550D7456),
        (b"abc", 0x32D153FF),
        (b"Nobody inspects the spammish repetition", 0xE2293B2F),
    ],
)
def test_xxhash32_known_values(data: bytes, expected: int) -> None:
    """The hash agrees with the published one."""
    assert xxhash32(data) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1.5e-7, "1.5e-7"), (2.5e-6, "0.0000025"), (1e-5, "0.00001"), (3.0, "3"), (0.1, "0.1"), (1e21, "1e+21")],
)
def test_numbers_are_written_as_in_javascript(number: float, expected: str) -> None:
    """Prices read as the recorded server writes them."""
    assert number_text(number) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NaN", "NaN"),
        ("1", 1),
        ('"a"', "a"),
        ("word", "word"),
        ("[" * 99_999, "[" * 99_999),
        ("", ""),
        (" 1", 1),
    ],
)
def test_text_is_parsed_where_it_is_json(text: str, expected: object) -> None:
    """What is no JSON stays text; Python's own extensions of JSON are none."""
    assert parse_or_text(text) == expected


def test_json_out_is_always_json() -> None:
    """Numbers that JSON lacks become null, wherever they are."""
    assert compact({"a": [float("inf"), {"b": float("nan")}], "c": "é"}) == '{"a":[null,{"b":null}],"c":"é"}'
    assert parse_or_none("Infinity") is None


@pytest.mark.parametrize(
    ("text", "ms"),
    [("2026-11-20T09:00:00.9999Z", 999), ("2026-11-20T10:00:00+01:00", 0), ("2026-11-20T09:00Z", 0)],
)
def test_times_are_cut_to_milliseconds(text: str, ms: int) -> None:
    """Fractions beyond milliseconds are cut and not rounded, in any zone."""
    assert iso_to_ms(text) - iso_to_ms("2026-11-20T09:00:00Z") == ms
    assert ms_to_iso(iso_to_ms(text)) == f"2026-11-20T09:00:00.{ms:03d}Z"


@pytest.mark.parametrize(
    "text", ["2026-11-20", "2026-11-20T09:00:00", "20261120T090000Z", "2026-13-20T09:00:00Z", ""]
)
def test_incomplete_times_are_no_parameters(text: str) -> None:
    """Parameters need date, time and zone."""
    assert not is_full_iso(text)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ('{"input": 1, "output": 2}', {"input": 1, "output": 2, "total": 3}),
        ('{"input": "4"}', {"input": 4, "total": 4}),
        ('{"input": -5, "output": 1.5, "x": true, "y": null}', {}),
        ('{"input": 1e400}', {}),
        ("[]", {}),
    ],
)
def test_only_whole_counts_are_usage(details: str, expected: dict[str, int]) -> None:
    """Values that are no counts are dropped one by one, and the total is added."""
    assert read_usage({"langfuse.observation.usage_details": details}) == expected


def test_words_are_whole() -> None:
    """A part of a word is not found, and an underscore belongs to its word."""
    assert has_words("Needle in a haystack", '["needle", "a"]', 1)
    assert not has_words("Needle in a haystack", '["hay"]', 1)
    assert not has_words("lookup_order(4711)", '["order"]', 1)
    assert not has_words(None, '["a"]', 1)

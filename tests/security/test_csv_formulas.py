"""Exported tables in a spreadsheet: no cell is a formula, and nothing of the texts is lost."""

from __future__ import annotations

import csv
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import research_kit as rk

SEPARATORS = ",;\t|"
PARTS = [
    "=", "+", "-", "@", "|", "%", "\uff1d", "\uff0b", "\ufe63", "\u207c", "'", "''", '"', '""', ";", ",",
    "\t", "\n", "\r", "\r\n", " ",
    "\u00a0", "\u3000", "\u200b", "\ufeff", "\0", "\x0b", "\x85", "\u2028", "a", "cmd", "1", "é",
]  # fmt: skip
KNOWN = [
    "=1+1",
    "t\n=cmd|' /C calc'!A0;",
    "a;=1",
    "a\t=1",
    "a|=1",
    "a\r\n+1",
    "  =1",
    "\0=1",
    "\ufeff=1",
    'a;"=1',
    "\uff1d1",
    "'=1",
    "''=1",
    "\t\t=1",
    "-",
    "- item\n- item",
    "it's = fine; and 'so' is - this",
]


def texts(seed: int) -> list[str]:
    random_ = random.Random(seed)
    made = ["".join(random_.choices(PARTS, k=random_.randrange(9))) for _ in range(3000)]
    return [*KNOWN, *made]


def cells(path: Path, separator: str) -> Iterator[str]:
    """Yield the cells of a file as a spreadsheet with this separator cuts it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from (cell for row in csv.reader(file, delimiter=separator) for cell in row)


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet may evaluate a cell: blanks, quotes and what has no width do not count."""
    skipped = [char for char in set(cell) if unicodedata.category(char) in ("Cc", "Cf", "Zs")]
    begin = cell.lstrip("".join(skipped) + '"')[:1]
    return unicodedata.normalize("NFKC", begin) in ("=", "+", "-", "@")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("separator", SEPARATORS, ids=["comma", "semicolon", "tab", "bar"])
def test_no_cell_is_a_formula(seed: int, separator: str, tmp_path: Path) -> None:
    """Whichever separator a spreadsheet looks for, no cell and no header begins as a formula."""
    made = texts(seed)
    headers = ["=h", "a\n=b", "a;+b", "a\t@b", "n"]
    frame = pd.DataFrame({name: pd.array(made, dtype="string") for name in headers})
    path = rk.export(frame, tmp_path / "texts.csv")
    assert [cell for cell in cells(path, separator) if is_formula(cell)] == []


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_back_is_what_was_written(seed: int, tmp_path: Path) -> None:
    """Guarding a text loses nothing of it, also where it had apostrophes of its own."""
    frame = pd.DataFrame(
        {name: pd.array(texts(seed), dtype="string") for name in ("=h", "a\n=b", "'=c", "n")}
    )
    back = rk.read_export(rk.export(frame, tmp_path / "texts.csv"))
    pd.testing.assert_frame_equal(back, frame)

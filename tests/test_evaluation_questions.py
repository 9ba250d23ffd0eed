"""The evaluation's questions: their answers are what an independent computation and the documents say."""

from __future__ import annotations

import duckdb
import pytest

from benchmarks.evaluation.questions import DOCUMENTS, Question, is_right, load_questions, load_table

QUESTIONS = load_questions()
TABLES = sorted({name for question in QUESTIONS for name in question.tables})


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for name in TABLES:
        connection.register(name, load_table(name))
    return connection


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.question_id)
def test_expected_answer_is_right(question: Question, database: duckdb.DuckDBPyConnection) -> None:
    """A figure is what SQL computes on the table; a quotation stands in the named document."""
    assert not set(question.expected) & set(question.avoid)
    if question.sql:
        rows = database.execute(question.sql).fetchall()
        values = [f"{value:.6g}" if isinstance(value, float) else str(value) for row in rows for value in row]
        assert list(question.expected) == values
    elif question.file:
        text = " ".join((DOCUMENTS / question.file).read_text().split())
        assert question.phrase in text
        assert all(part in text for part in question.expected)


def test_splits_share_nothing() -> None:
    """At least forty questions; no table and no document of the test split occurs in the other."""
    shown = {
        split: {
            name
            for question in QUESTIONS
            if question.split == split
            for name in (*question.tables, question.file)
        }
        for split in ("train", "test")
    }
    assert shown["train"] & shown["test"] == {""}
    assert len(QUESTIONS) >= 40
    assert len({question.question for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("answer", "expected", "avoid", "right"),
    [
        ("There are 1,461 days.", ("1461",), (), True),
        ("There are 1461.0 days.", ("1461",), (), True),
        ("There are 14611 days.", ("1461",), (), False),
        ("About 3.24 m/s", ("3.24114",), (), True),
        ("About 3.3 m/s", ("3.24114",), (), False),
        ("sun: 714, rain: 259", ("sun", "714", "rain", "259"), (), True),
        ("Sunday", ("sun",), (), False),
        ("Gentoo, then Adelie", ("Gentoo",), ("Adelie",), False),
        ("the tag `rk-ignore-output`", ("rk-ignore-output",), (), True),
        ("column c3 has none", ("3",), (), False),
    ],
)
def test_judge(answer: str, expected: tuple[str, ...], avoid: tuple[str, ...], right: bool) -> None:
    """Counts are exact, other numbers may be rounded, words are whole words."""
    question = Question(
        question_id="q", split="test", kind="k", tables=(), question="?", expected=expected, avoid=avoid
    )
    assert is_right(answer, question) is right

"""What a question mentions of a table."""

from __future__ import annotations

import pytest

from research_kit.agent.linking import Table, link, words

TABLE = Table(
    name="voyages",
    numbers=("length_km", "total_price", "year"),
    categories={"origin": ("Oslo", "New York"), "target": ("Oslo", "Bergen"), "species": ("cod", "species")},
    others=("captain",),
)


@pytest.mark.parametrize(
    ("question", "pattern"),
    [
        ("How many voyages are there?", "How many ROWS are there?"),
        ("What is the total length?", "What is the total NUMBER?"),
        ("What is the total price?", "What is the total NUMBER?"),
        ("How many voyages start in New York?", "How many ROWS start in VALUE?"),
        ("How many origins are there?", "How many CATEGORY are there?"),
        ("What is the mean length per origin?", "What is the mean NUMBER per CATEGORY?"),
        ("How many voyages in new york?", "How many ROWS in VALUE?"),
        ("Nothing of this is there.", "Nothing of this is there."),
        ("", ""),
    ],
)
def test_pattern_replaces_what_is_mentioned(question: str, pattern: str) -> None:
    """Names and values become what they are; the words that say what to compute stay."""
    assert link(question, TABLE).pattern == pattern


def test_a_value_of_two_columns_belongs_to_the_one_that_is_named() -> None:
    """When two columns have a value, the column named in the question has it."""
    assert link("How many voyages have the target Oslo?", TABLE).values == (("target", "Oslo"),)
    assert link("How many voyages leave Oslo?", TABLE).values == (("origin", "Oslo"),)


def test_values_of_two_columns_are_both_found() -> None:
    """Two values of different columns are two conditions."""
    links = link("How many voyages go from New York to Bergen?", TABLE)
    assert set(links.values) == {("origin", "New York"), ("target", "Bergen")}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many voyages are longer than 50.5 km in 2007?", [(">", 50.5), ("==", 2007.0)]),
        ("How many voyages cost at least 10?", [(">=", 10.0)]),
        ("How many voyages are shorter than 7 km?", [("<", 7.0)]),
        ("What is the mean price of at most 3 km?", [("<=", 3.0)]),
        ("How many voyages are over -2?", [(">", -2.0)]),
        ("How many voyages had 5 stops?", [("==", 5.0)]),
        ("How many voyages has Q4?", []),
    ],
)
def test_numbers_are_comparisons(question: str, expected: list[tuple[str, float]]) -> None:
    """A number that is no value of the table is compared with, as the words before it say."""
    links = link(question, TABLE)
    assert [(found.operator, found.number) for found in links.comparisons] == expected
    assert links.pattern.count("VALUE") == len(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Body_mass in Grams", ["body", "mass", "in", "gram"]),
        ("species", ["species"]),
        ("petalLength", ["petal", "length"]),
        ("boxes", ["box"]),
        ("?", []),
    ],
)
def test_words_are_singular_and_lower_case(text: str, expected: list[str]) -> None:
    """Words compare without case, underscores and plural."""
    assert words(text) == expected

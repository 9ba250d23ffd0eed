"""Where a question mentions the names and values of a table.

Owns the comparison of words; asks no language model. Invariant: nothing is linked that does not stand in the
question, and the same question and table always give the same links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["CATEGORY", "NUMBER", "ROWS", "VALUE", "Links", "Table", "link", "words"]

ROWS, CATEGORY, NUMBER, VALUE = "ROWS", "CATEGORY", "NUMBER", "VALUE"

# Words that say what to compute, also where a column happens to contain them.
_OPERATION_WORDS = frozenset(
    {
        "average",
        "count",
        "different",
        "distinct",
        "each",
        "how",
        "list",
        "many",
        "max",
        "maximum",
        "mean",
        "median",
        "min",
        "minimum",
        "much",
        "number",
        "per",
        "sum",
        "table",
        "total",
        "unique",
        "what",
        "which",
    }
)
_TOKEN = re.compile(r"[^\W_]+(?:\.\d+)?|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A DataFrame as the kernel's tools describe it.

    Attributes:
        name: The variable's name.
        numbers: Names of the numeric columns.
        categories: Values of each text column with few values.
        others: Names of the remaining columns.
    """

    name: str
    numbers: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    others: tuple[str, ...]

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Table:
        """Read the structured answer of the tool ``describe_variable``."""
        columns = description["columns"]
        return cls(
            name=description["name"],
            numbers=tuple(column["name"] for column in columns if column["kind"] == "number"),
            categories={
                column["name"]: tuple(column["values"]) for column in columns if column["kind"] == "category"
            },
            others=tuple(column["name"] for column in columns if column["kind"] == "other"),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """All column names."""
        return (*self.numbers, *self.categories, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What a question mentions.

    Attributes:
        pattern: The question with the mentions replaced by what they are.
        columns: Mentioned columns.
        values: Mentioned values, each with its column; at most one per column.
        numbers: Numbers that are neither a name nor a value of the table.
    """

    pattern: str
    columns: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case and singular; underscores separate words."""
    return [
        _singular(token.lower()) for token in _TOKEN.findall(text.replace("_", " ")) if token[0].isalnum()
    ]


def link(question: str, table: Table) -> Links:
    """Find the table's name, columns and values in ``question``."""
    asked = set(words(question))
    values = _mentioned_values(asked, table)
    roles = _roles(table, values)
    tokens: list[str] = []
    numbers: list[str] = []
    for token in _TOKEN.findall(question.replace("_", " ")):
        role = roles.get(_singular(token.lower()), token)
        if role == token and token[0].isdigit():
            numbers.append(token)
        if not (tokens and role == tokens[-1] and role.isupper()):
            tokens.append(role)
    columns = tuple(column for column in table.columns if asked & _column_words(column))
    pattern = re.sub(r" ([?,.!])", r"\1", " ".join(tokens))
    return Links(pattern=pattern, columns=columns, values=values, numbers=tuple(numbers))


def _mentioned_values(asked: set[str], table: Table) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    taken: set[str] = set()
    # A column that is itself named in the question claims a value that occurs in several columns.
    for column in sorted(table.categories, key=lambda name: not asked & _column_words(name)):
        for value in sorted(table.categories[column], key=len, reverse=True):
            parts = set(words(value))
            if parts and parts <= asked and not parts & taken and not parts <= _OPERATION_WORDS:
                found.append((column, value))
                taken |= parts
                break
    return tuple(found)


def _roles(table: Table, values: tuple[tuple[str, str], ...]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for column in table.columns:
        role = NUMBER if column in table.numbers else CATEGORY
        roles.update(dict.fromkeys(_column_words(column), role))
    roles.update({word: ROWS for word in words(table.name) if len(word) > 2})
    roles.update({word: VALUE for _, value in values for word in words(value)})
    return {word: role for word, role in roles.items() if word not in _OPERATION_WORDS}


def _column_words(column: str) -> set[str]:
    """Return the telling words of a column name; units such as ``mm`` are none."""
    return {word for word in words(column) if len(word) > 2 and word not in _OPERATION_WORDS}


def _singular(word: str) -> str:
    if word == "species" or word.endswith("ss") or len(word) <= 3:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("es") and word[-3] in "sxz":
        return word[:-2]
    return word.removesuffix("s")

"""Where a question mentions the names and values of a table.

Owns the comparison of words; asks no language model. Invariant: nothing is linked that does not stand in the
question, and the same question and table always give the same links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CATEGORY",
    "NUMBER",
    "ROWS",
    "VALUE",
    "Comparison",
    "Links",
    "Table",
    "link",
    "overlap",
    "words",
]

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
# What an adjective or verb measures, in the words that columns use.
_MEASURES = {
    **dict.fromkeys(("heavy", "heaviest", "heavier", "light", "lightest", "weigh"), ("mass", "weight")),
    **dict.fromkeys(("old", "oldest", "older", "young", "youngest", "younger"), ("age",)),
    **dict.fromkeys(("tall", "tallest", "taller"), ("height",)),
    **dict.fromkeys(("long", "longest", "longer", "short", "shortest", "shorter"), ("length", "duration")),
    **dict.fromkeys(("wide", "widest", "wider", "narrowest"), ("width",)),
    **dict.fromkeys(("deep", "deepest", "deeper"), ("depth",)),
    **dict.fromkeys(("fast", "fastest", "faster", "slowest"), ("speed",)),
    **dict.fromkeys(("dear", "dearest", "cheap", "cheapest", "expensive", "cost"), ("price", "cost")),
}
_TOKEN = re.compile(r"[^\W_]+(?:\.\d+)?|[^\w\s]")
# The border between two words of a name such as petalLength.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# What a word before a number says; any other "...er than" means more.
_COMPARISONS = {
    "<": r"(?:less|fewer|smaller|lower|shorter|lighter|younger|cheaper) than|under|below",
    ">=": "at least|not less than|no less than",
    "<=": "at most|not more than|no more than|up to",
    ">": r"(?:more|\w+er) than|over|above|exceeding|exceeds",
    "==": "exactly|of|in|equal to|is",
}
_COMPARISON = re.compile(
    rf"\b(?:(?P<words>{'|'.join(_COMPARISONS.values())}) )?(?P<number>-?\d+(?:\.\d+)?)(?![\w.]*\w)",
    re.IGNORECASE,
)


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
class Comparison:
    """A number in a question, and how rows are compared with it.

    Attributes:
        operator: ``>``, ``<``, ``>=``, ``<=`` or ``==``.
        number: The number.
        around: The words beside it, which say what is compared.
    """

    operator: str
    number: float
    around: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What a question mentions.

    Attributes:
        pattern: The question with the mentions replaced by what they are.
        columns: Mentioned columns.
        values: Mentioned values, each with its column; at most one per column.
        comparisons: Numbers that are compared with, of a column that is to be found.
    """

    pattern: str
    columns: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    comparisons: tuple[Comparison, ...]


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case and singular; underscores separate words."""
    return [_singular(token.lower()) for token in _tokens(text) if token[0].isalnum()]


def overlap(column: str, said: set[str]) -> int:
    """Return how many telling words of a column's name are among ``said``, or are what these measure."""
    meant = {kin for word in said for kin in _MEASURES.get(word, ())}
    return len(_column_words(column) & (said | meant))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(_CAMEL.sub(" ", text.replace("_", " ")))


def link(question: str, table: Table) -> Links:
    """Find the table's name, columns and values in ``question``."""
    asked = set(words(question))
    values = _mentioned_values(question, table)
    taken = {word for _, value in values for word in words(value)}
    comparisons, rest = _comparisons(question, taken | set(words(table.name)))
    roles = _roles(table, values)
    tokens: list[str] = []
    for token in _tokens(rest):
        role = roles.get(_singular(token.lower()), token)
        if not (tokens and role == tokens[-1] and role.isupper()):
            tokens.append(role)
    columns = tuple(column for column in table.columns if asked & _column_words(column))
    pattern = re.sub(r" ([?,.!])", r"\1", " ".join(tokens))
    return Links(pattern=pattern, columns=columns, values=values, comparisons=comparisons)


def _comparisons(question: str, taken: set[str]) -> tuple[tuple[Comparison, ...], str]:
    """Return the comparisons with numbers, and the question with a value in their place."""
    found: list[Comparison] = []

    def replace(match: re.Match[str]) -> str:
        if match["number"] in taken:
            return match[0]
        wording = (match["words"] or "exactly").lower()
        operator = next(sign for sign, known in _COMPARISONS.items() if re.fullmatch(known, wording))
        around = [*words(question[: match.start()])[-3:], *words(question[match.end() :])[:3]]
        found.append(Comparison(operator=operator, number=float(match["number"]), around=tuple(around)))
        return VALUE

    rest = _COMPARISON.sub(replace, question)
    return tuple(found), rest


def _mentioned_values(question: str, table: Table) -> tuple[tuple[str, str], ...]:
    asked, written = set(words(question)), set(_tokens(question))
    found: list[tuple[str, str]] = []
    taken: set[str] = set()
    # A column that is itself named in the question claims a value that occurs in several columns.
    for column in sorted(table.categories, key=lambda name: not asked & _column_words(name)):
        for value in sorted(table.categories[column], key=len, reverse=True):
            parts = set(words(value))
            # A value as short as "A" must be written like that: "a" is an article.
            is_said = parts <= asked if len(value) > 2 else value in written
            if parts and is_said and not parts & taken and not parts <= _OPERATION_WORDS:
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

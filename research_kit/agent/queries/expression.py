"""The part of pandas' query language that only compares: ``body_mass_g > 4000 and species == "Gentoo"``.

Owns what an expression may contain. Invariant: what is compiled is the very tree that was checked, and it has
column names, constants, arithmetic and comparisons, and nothing that can be called or looked into.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from research_kit.agent.queries.answers import QueryError, show

__all__ = ["Expression", "read_expression"]

_MAX_CHARACTERS = 1_000
_MAX_NODES = 200
_ADVICE = "Write columns, values, comparisons, 'and', 'or', 'not', 'in' and arithmetic only."
# A string or a quoted name is one piece whatever is in it; a quote that does not end is left to the parser.
_PIECES = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|`([^`\n]+)`|([&|])""")
_ESCAPES = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", "'": "'", '"': '"'}
# In pandas' query language these bind as weakly as the words.
_WORDS = {"&": " and ", "|": " or "}
_ALLOWED = (
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.Invert,
    ast.USub,
    ast.UAdd,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Mod,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.In,
    ast.NotIn,
    ast.List,
    ast.Tuple,
    ast.Load,
    ast.Name,
    ast.Constant,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A checked expression.

    Attributes:
        text: As it was written.
        tree: What it means; strings and quoted names are names in it.
        strings: The string that each of these names stands for.
        columns: The column that each of these names stands for.
    """

    text: str
    tree: ast.expr
    strings: dict[str, str]
    columns: dict[str, str]


def read_expression(text: str) -> Expression:
    """Return ``text`` as a tree when it only compares columns with values.

    Raises:
        QueryError: When it contains anything else; the message says what may be written.
    """
    if len(text) > _MAX_CHARACTERS:
        raise QueryError(f"the expression has more than {_MAX_CHARACTERS} characters.")
    strings: dict[str, str] = {}
    columns: dict[str, str] = {}
    # Strings and quoted names are taken out first: Python's parser sees names, numbers and operators.
    names = _unused_names(text)

    def stand_in(piece: re.Match[str]) -> str:
        string, column, operator = piece.groups()
        if operator:
            return _WORDS[operator]
        name = next(names)
        if column:
            columns[name] = column
        else:
            strings[name] = _unescaped(string[1:-1])
        return f" {name} "

    tree = _parsed(_PIECES.sub(stand_in, text).strip(), text)
    _check(tree, text, strings)
    return Expression(text=text.strip(), tree=tree, strings=strings, columns=columns)


def _unused_names(text: str) -> Iterator[str]:
    number = 0
    while True:
        name = f"piece_{number}"
        number += 1
        if name not in text:
            yield name


def _unescaped(string: str) -> str:
    def character(escape: re.Match[str]) -> str:
        code = escape[1]
        if code[0] in "xuU" and len(code) > 1:
            return chr(int(code[1:], 16))
        return _ESCAPED.get(code, escape[0])

    return _ESCAPES.sub(character, string)


def _parsed(source: str, text: str) -> ast.expr:
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise QueryError(f"{show(text)!r} is not an expression ({reason}). {_ADVICE}") from error


def _check(tree: ast.expr, text: str, strings: dict[str, str]) -> None:
    nodes = list(ast.walk(tree))
    strange = next(
        (node for node in nodes if not isinstance(node, _ALLOWED) or _calculates_text(node, strings)), None
    )
    if strange is not None or len(nodes) > _MAX_NODES:
        what = type(strange).__name__ if strange is not None else "more than fits"
        raise QueryError(f"the expression {show(text)!r} contains {what}. {_ADVICE}")


def _calculates_text(node: ast.AST, strings: dict[str, str]) -> bool:
    """Return True for arithmetic on texts and lists."""
    return isinstance(node, ast.BinOp) and any(
        isinstance(side, ast.List | ast.Tuple) or (isinstance(side, ast.Name) and side.id in strings)
        for side in (node.left, node.right)
    )

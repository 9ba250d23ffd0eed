"""The part of pandas' query language that only compares: ``body_mass_g > 4000 and species == "Gentoo"``.

Owns what an expression may contain; the comparing is pandas'. Invariant: an expression that is handed to
pandas has column names, constants, arithmetic and comparisons, and nothing that can be called or looked into.
"""

from __future__ import annotations

import ast
import re

__all__ = ["ExpressionError", "check_expression"]

_MAX_CHARACTERS = 1_000
_MAX_NODES = 200
_QUOTED_NAME = re.compile(r"`[^`\n]*`")
_ALLOWED = (
    ast.Expression,
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
    ast.BitAnd,
    ast.BitOr,
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


class ExpressionError(ValueError):
    """An expression that is not handed to pandas; the message says what may be written."""


def check_expression(expression: str) -> str:
    """Return ``expression`` when it only compares columns with values.

    Raises:
        ExpressionError: When it contains anything else.
    """
    if len(expression) > _MAX_CHARACTERS:
        raise ExpressionError(f"the expression has more than {_MAX_CHARACTERS} characters.")
    try:
        # Backticks quote column names with blanks; inside them anything is a name.
        tree = ast.parse(_QUOTED_NAME.sub("quoted", expression).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{expression!r} is not an expression ({error}).") from error
    nodes = list(ast.walk(tree))
    strange = next((node for node in nodes if not isinstance(node, _ALLOWED)), None)
    strange = strange or next((node for node in nodes if _multiplies_text(node)), None)
    if strange is not None or len(nodes) > _MAX_NODES:
        what = type(strange).__name__ if strange is not None else "more than fits"
        raise ExpressionError(
            f"the expression {expression!r} contains {what}. Write columns, values, comparisons, "
            "'and', 'or', 'not', 'in' and arithmetic only."
        )
    return expression.strip()


def _multiplies_text(node: ast.AST) -> bool:
    """Return True for arithmetic on texts and lists, which can grow beyond memory."""
    if not isinstance(node, ast.BinOp):
        return False
    return any(
        isinstance(side, ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and not isinstance(side.value, int | float))
        for side in (node.left, node.right)
    )

"""From a checked expression to a condition in SQL.

Owns what each part of an expression means: what it means in pandas, where missing values are concerned too.
Invariant: names become columns that are handed over, constants become bound parameters.
"""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from research_kit.agent.queries.answers import QueryError, listed, near_names, show
from research_kit.agent.queries.columns import Kind, value_text
from research_kit.agent.queries.expression import Expression
from research_kit.agent.queries.frames import column_names
from research_kit.agent.queries.moments import moment_ns, span_ns

if TYPE_CHECKING:
    from research_kit.agent.queries.columns import Column
    from research_kit.agent.queries.selection import Selection

__all__ = ["compile_expression"]

# A chained comparison and a remainder repeat what they are made of, and these what they are made of.
_MAX_SQL = 50_000
_LIST_ADVICE = "'in' needs a list of values on its right: column in ['a', 'b']."
_OPERATORS = {
    ast.Eq: "=",
    ast.NotEq: "<>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_CALCULATIONS: dict[type[ast.operator], Callable[[str, str], str]] = {
    ast.Add: lambda left, right: f"({left} + {right})",
    ast.Sub: lambda left, right: f"({left} - {right})",
    ast.Mult: lambda left, right: f"({left} * {right})",
    ast.Div: lambda left, right: f"(CAST({left} AS DOUBLE) / CAST({right} AS DOUBLE))",
    # The remainder has the sign of the divisor in Python, of the dividend in SQL.
    ast.Mod: lambda left, right: f"((({left} % nullif({right}, 0)) + {right}) % nullif({right}, 0))",
}
_NAMES = {"number": "numbers", "text": "texts", "time": "points in time", "span": "spans of time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of an expression.

    Attributes:
        sql: The part in SQL; of a constant not made yet.
        kind: What its values are.
        column: The column that it is.
        constant: The constant that it is.
        has_columns: False for constants and what is made of them only.
        has_unknowns: True when a missing value makes a comparison neither true nor false.
        is_calculated: True when it may be no number, which SQL compares as one.
    """

    sql: str
    kind: Kind
    column: Column | None = None
    constant: str | float | bool | None = None
    has_columns: bool = True
    has_unknowns: bool = False
    is_calculated: bool = False


def compile_expression(expression: Expression, selection: Selection) -> str:
    """Return the condition that ``expression`` is, and hand over the columns that it names.

    Raises:
        QueryError: When a name is no column, when kinds do not go together, or when the whole is not true or
            false for each row.
    """
    part = _Compiler(expression, selection).part(expression.tree)
    if part.kind != "boolean" or not part.has_columns:
        raise QueryError(
            f"{show(expression.text)!r} is not true or false for each row; compare a column with a value."
        )
    return part.sql


class _Compiler:
    def __init__(self, expression: Expression, selection: Selection) -> None:
        self._expression = expression
        self._selection = selection
        self._names = column_names(selection.frame)

    def part(self, node: ast.expr) -> _Part:
        """Return a part in SQL.

        Raises:
            QueryError: When it cannot be there, or grows too long.
        """
        part = self._made(node)
        if len(part.sql) > _MAX_SQL:
            raise QueryError(
                f"the expression {show(self._expression.text)!r} is more than fits. Write it shorter."
            )
        return part

    @singledispatchmethod
    def _made(self, node: ast.AST) -> _Part:
        raise QueryError(f"the expression contains {type(node).__name__} where it cannot be.")

    @_made.register
    def _(self, node: ast.Constant) -> _Part:
        value: Any = node.value
        if not isinstance(value, bool | int | float):
            raise QueryError(
                f"{value!r} is not a value to compare with; write a number, a text or True or False."
            )
        kind: Literal["boolean", "number"] = "boolean" if isinstance(value, bool) else "number"
        return _Part(sql=self._selection.parameter(value), kind=kind, constant=value, has_columns=False)

    @_made.register
    def _(self, node: ast.Name) -> _Part:
        text = self._expression.strings.get(node.id)
        if text is not None:
            sql = self._selection.parameter(text)
            return _Part(sql=sql, kind="text", constant=text, has_columns=False)
        return self._column(self._expression.columns.get(node.id, node.id))

    def _column(self, name: str) -> _Part:
        # Python's parser has normalized the names that stand in no quotes.
        same = (other for other in self._names if unicodedata.normalize("NFKC", other) == name)
        known = name if name in self._names else next(same, None)
        if known is None:
            near = near_names(name, self._names)
            hint = f" Did you mean {listed(near)}?" if near else ""
            raise QueryError(
                f"name {listed([name])} is not defined.{hint} Columns: {listed(self._names)}; "
                "texts need quotes."
            )
        column = self._selection.column(known)
        part = _Part(sql="", kind="text", column=column, has_unknowns=column.has_unknowns)
        kind = column.natural_kind
        if kind != column.kind and kind in ("boolean", "number"):
            return replace(part, sql=self._selection.natural(column), kind=kind)
        if kind not in ("boolean", "number", "span", "time") or column.values.is_coded:
            return replace(part, sql=self._selection.texts(column))
        return replace(part, sql=self._selection.comparable(column), kind=kind)

    @_made.register
    def _(self, node: ast.BoolOp) -> _Part:
        parts = [self._condition(value) for value in node.values]
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        return _Part(
            sql=f"({word.join(part.sql for part in parts)})",
            kind="boolean",
            has_columns=any(part.has_columns for part in parts),
        )

    @_made.register
    def _(self, node: ast.UnaryOp) -> _Part:
        if isinstance(node.op, ast.Not | ast.Invert):
            part = self._condition(node.operand)
            return _Part(sql=f"(NOT {part.sql})", kind="boolean", has_columns=part.has_columns)
        part = self._number(node.operand)
        if isinstance(node.op, ast.UAdd):
            return part
        return replace(part, sql=f"(- {_wide(part)})", column=None, constant=None, is_calculated=True)

    @_made.register
    def _(self, node: ast.BinOp) -> _Part:
        left, right = self._number(node.left), self._number(node.right)
        return _Part(
            sql=_CALCULATIONS[type(node.op)](_wide(left), _wide(right)),
            kind="number",
            has_columns=left.has_columns or right.has_columns,
            has_unknowns=left.has_unknowns or right.has_unknowns,
            is_calculated=True,
        )

    @_made.register
    def _(self, node: ast.Compare) -> _Part:
        # Each side once, though the middle ones are compared twice.
        sides = [self._side(side) for side in (node.left, *node.comparators)]
        parts = [
            self._comparison(left, operator, right)
            for (left, right), operator in zip(pairwise(sides), node.ops, strict=True)
        ]
        return _Part(
            sql=f"({' AND '.join(part.sql for part in parts)})",
            kind="boolean",
            has_columns=any(part.has_columns for part in parts),
        )

    def _condition(self, node: ast.expr) -> _Part:
        part = self.part(node)
        if part.kind != "boolean":
            raise QueryError(f"{ast_text(node, self._expression)!r} is not true or false for each row.")
        if part.column is not None and not part.has_unknowns:
            return replace(part, sql=f"coalesce({part.sql}, FALSE)")
        return part

    def _number(self, node: ast.expr) -> _Part:
        part = self.part(node)
        if part.kind != "number":
            raise QueryError(
                f"the values do not allow it: {ast_text(node, self._expression)!r} is no number to calculate "
                "with. query_sql calculates with texts and times."
            )
        return part

    def _side(self, node: ast.expr) -> _Part | list[_Part]:
        if isinstance(node, ast.List | ast.Tuple):
            return [self.part(value) for value in node.elts]
        return self.part(node)

    def _comparison(
        self, left: _Part | list[_Part], operator: ast.cmpop, right: _Part | list[_Part]
    ) -> _Part:
        is_list = isinstance(right, list)
        may_be_list = isinstance(operator, ast.In | ast.NotIn | ast.Eq | ast.NotEq)
        if isinstance(left, list) or (is_list and not may_be_list):
            raise QueryError(_LIST_ADVICE)
        if isinstance(right, list):
            return self._membership(left, right, is_in=isinstance(operator, ast.In | ast.Eq))
        if isinstance(operator, ast.In | ast.NotIn):
            raise QueryError(_LIST_ADVICE)
        return self._compared(left, _OPERATORS[type(operator)], right)

    def _membership(self, part: _Part, values: list[_Part], *, is_in: bool) -> _Part:
        found = [self._compared(part, "=", value).sql for value in values]
        sql = f"coalesce({' OR '.join(found) or 'FALSE'}, FALSE)"
        return _Part(sql=sql if is_in else f"(NOT {sql})", kind="boolean", has_columns=part.has_columns)

    def _compared(self, left: _Part, operator: str, right: _Part) -> _Part:
        left, right = self._fitted(left, right, operator), self._fitted(right, left, operator)
        if left.kind != right.kind:
            raise QueryError(_unequal(left, right))
        sql = f"{_safe(left)} {operator} {_safe(right)}"
        is_text = isinstance(left.constant, str) or isinstance(right.constant, str)
        has_unknowns = left.has_unknowns or right.has_unknowns
        if not has_unknowns or (is_text and operator in ("=", "<>")):
            # A missing value is unequal to everything, and neither smaller nor larger; pandas' NA is unknown
            # to compare, but not with a text: there pandas looks whether it is one of several.
            sql = f"coalesce({sql}, {'TRUE' if operator == '<>' else 'FALSE'})"
        return _Part(sql=f"({sql})", kind="boolean", has_columns=left.has_columns or right.has_columns)

    def _fitted(self, part: _Part, other: _Part, operator: str) -> _Part:
        """Return ``part`` such that it can be compared with ``other``."""
        if isinstance(part.constant, str) and other.column is not None:
            if other.kind == "time":
                moment = moment_ns(part.constant, other.column, zone=None)
                return replace(part, sql=self._selection.parameter(moment), kind="time")
            if other.kind == "span":
                span = span_ns(part.constant, other.column.name)
                return replace(part, sql=self._selection.parameter(span), kind="span")
        if part.kind == "boolean" and other.kind == "number":
            return replace(part, sql=f"CAST({part.sql} AS INTEGER)", kind="number")
        if operator not in ("=", "<>"):
            return self._ranked(part, other)
        return part

    def _ranked(self, part: _Part, other: _Part) -> _Part:
        """Return categories, and the category that they are compared with, as places in their order."""
        if part.kind == "text" and part.column is not None and part.column.kind == "category":
            _check_order(part.column, other)
            return replace(part, sql=self._selection.values(part.column), kind="number")
        if isinstance(part.constant, str) and other.column is not None and other.column.kind == "category":
            place = _check_order(other.column, part)
            return replace(part, sql=self._selection.parameter(place), kind="number", constant=place)
        return part


def ast_text(node: ast.expr, expression: Expression) -> str:
    """Return a part of an expression as it was written, roughly."""
    text = ast.unparse(node)
    for name, string in expression.strings.items():
        text = text.replace(name, repr(string))
    for name, column in expression.columns.items():
        text = text.replace(name, f"`{column}`")
    return show(text)


def _wide(part: _Part) -> str:
    """Return a number such that calculating with it does not overflow."""
    column = part.column if part.column is not None and part.column.kind == "number" else None
    is_integer = isinstance(part.constant, int) or (column is not None and _is_integer(column))
    return f"CAST({part.sql} AS HUGEINT)" if is_integer else part.sql


def _is_integer(column: Column) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(column.values.array.type))


def _safe(part: _Part) -> str:
    # What is no number is larger than all numbers in SQL.
    return f"nullif(CAST({part.sql} AS DOUBLE), CAST('nan' AS DOUBLE))" if part.is_calculated else part.sql


def _check_order(column: Column, other: _Part) -> int:
    """Return the place of the category that is compared with."""
    if not column.is_ordered:
        raise QueryError(f"the values do not allow it: the categories of {column.name!r} have no order.")
    known = [value_text(category) for category in column.categories]
    if other.constant not in known:
        raise QueryError(
            f"the values do not allow it: the column {column.name!r} is compared with its own categories "
            f"only: {listed(known)}."
        )
    return known.index(str(other.constant))


def _unequal(left: _Part, right: _Part) -> str:
    def words(part: _Part) -> str:
        if part.column is not None:
            return f"the column {part.column.name!r} holds {_NAMES.get(part.kind, 'True and False')}"
        if part.constant is not None:
            return f"{show(part.constant)!r} is {'a text' if part.kind == 'text' else f'a {part.kind}'}"
        return f"the other side holds {_NAMES.get(part.kind, 'True and False')}"

    return f"the values do not allow it: {words(left)}, and {words(right)}."

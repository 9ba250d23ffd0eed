"""Statistics on one DataFrame, asked for in typed terms.

Owns the operations and how their results are worded; does not look up variables. Invariant: a query is data,
never code, and the frame is only read.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from research_kit.agent.row_filter import ExpressionError, check_expression

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Condition",
    "Operation",
    "QueryAnswer",
    "QueryError",
    "column_of",
    "describe_frame",
    "frame_query",
    "is_frame",
    "is_number",
    "plain",
    "select_rows",
    "show",
]

Operation = Literal[
    "count", "mean", "median", "sum", "min", "max", "std", "nunique", "value_counts", "count_missing", "rows"
]
Operator = Literal["==", "!=", "<", "<=", ">", ">="]

_NUMERIC_OPERATIONS = frozenset({"mean", "median", "sum", "std"})
_MAX_GROUPS = 30
_MAX_ROWS = 10
_MAX_COLUMNS = 60
_MAX_CATEGORIES = 50
_MAX_CELL = 60
_SAMPLE_ROWS = 100_000


class QueryError(ValueError):
    """A query that does not fit the frame; the message names what would."""


class Condition(BaseModel):
    """One condition that rows have to meet."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="Column to compare")
    operator: Operator = Field(default="==", description="How to compare")
    value: str | float | bool = Field(description="Value to compare with")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """The result of a query.

    Attributes:
        text: The result in words.
        structured: The same as JSON: ``value`` for one number, ``groups`` or ``rows`` for a table.
    """

    text: str
    structured: dict[str, Any]


def is_frame(value: object) -> bool:
    """Return True for a pandas DataFrame; does not import pandas."""
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] == "pandas"
        for base in type(value).__mro__
    )


def frame_query(
    frame: pd.DataFrame,
    operation: Operation,
    *,
    column: str | None = None,
    where: list[Condition] | None = None,
    group_by: str | None = None,
    query: str | None = None,
) -> QueryAnswer:
    """Compute ``operation`` on ``frame``.

    Args:
        frame: The table; not changed.
        operation: ``count`` counts rows, ``rows`` returns the first ones, the others need a column.
        column: The column to compute on.
        where: Only rows for which all conditions hold are used.
        group_by: Compute for each value of this column.
        query: Only rows for which this pandas expression holds are used; columns and values only.

    Raises:
        QueryError: When a column does not exist, has the wrong type, or is missing.
    """
    with _explained():
        selected, about = select_rows(frame, where or [], query)
        return _compute(selected, operation, column, group_by, about)


def select_rows(frame: pd.DataFrame, where: list[Condition], query: str | None) -> tuple[pd.DataFrame, str]:
    """Return the rows for which everything holds, and the conditions in words, with a blank before them.

    Raises:
        QueryError: When a condition does not fit the frame.
    """
    with _explained():
        selected = frame
        for condition in where:
            selected = selected.loc[_mask(selected, condition).to_numpy()]
        words = [f"{condition.column} {condition.operator} {condition.value}" for condition in where]
        if query:
            selected = selected.loc[_expression_mask(selected, query)]
            words.append(query)
    return selected, f" where {' and '.join(words)}" if words else ""


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what pandas says of odd values into a `QueryError`: columns may hold anything."""
    try:
        yield
    except QueryError:
        raise
    except (TypeError, ValueError, ArithmeticError, NotImplementedError) as error:
        raise QueryError(
            f"the values do not allow it ({type(error).__name__}: {show(str(error))})."
        ) from error


def _expression_mask(frame: pd.DataFrame, query: str) -> Any:
    import pandas as pd
    from pandas.errors import UndefinedVariableError

    try:
        checked = check_expression(query)
        mask = pd.DataFrame.eval(frame, checked, engine="python", local_dict={}, global_dict={})
    except (ExpressionError, SyntaxError) as error:
        raise QueryError(str(error)) from error
    except UndefinedVariableError as error:
        names = [str(name) for name in frame.columns]
        raise QueryError(f"{error}. Columns: {_listed(names)}; texts need quotes.") from error
    if not isinstance(mask, pd.Series) or not pd.api.types.is_bool_dtype(mask):
        raise QueryError(f"{query!r} is not true or false for each row; compare a column with a value.")
    return mask.fillna(False).to_numpy(dtype=bool)


def _compute(
    selected: pd.DataFrame, operation: Operation, column: str | None, group_by: str | None, about: str
) -> QueryAnswer:
    base: dict[str, Any] = {"operation": operation, "row_count": len(selected)}
    if operation == "rows":
        return _rows(selected, about, base)
    if operation == "count" and group_by is None:
        structured = {**base, "value": len(selected)}
        return QueryAnswer(text=f"count of rows{about}: {len(selected)}", structured=structured)
    if operation in ("count", "value_counts"):
        return _value_counts(selected, group_by if operation == "count" else column, about, base)
    series = column_of(selected, column)
    if operation == "count_missing":
        structured = {**base, "column": column, "value": int(series.isna().sum())}
        text = f"rows without a value in {column}{about}: {structured['value']} of {len(series)}"
        return QueryAnswer(text=text, structured=structured)
    _check_type(series, operation)
    if group_by is not None:
        return _grouped(selected, series, operation, group_by, about, base)
    return _one_value(series, operation, about, {**base, "column": column})


def _one_value(series: pd.Series[Any], operation: Operation, about: str, base: dict[str, Any]) -> QueryAnswer:
    has_result = len(series) > 0 or operation in ("sum", "nunique")
    value = plain(getattr(series, operation)()) if has_result else None
    missing = int(series.isna().sum())
    note = f" ({missing} of {len(series)} rows have no value)" if missing else ""
    structured = {**base, "value": value, "missing_count": missing}
    return QueryAnswer(
        text=f"{operation} of {base['column']}{about}: {show(value)}{note}", structured=structured
    )


def describe_frame(name: str, frame: pd.DataFrame) -> tuple[str, dict[str, Any]]:
    """Describe ``frame`` in words and as JSON; both stay small for wide and long tables."""
    columns = [_describe_column(frame, position) for position in range(min(frame.shape[1], _MAX_COLUMNS))]
    lines = [f"{name}: DataFrame, {frame.shape[0]} rows x {frame.shape[1]} columns"]
    lines += [f"- {column['name']}: {column['summary']}" for column in columns]
    if frame.shape[1] > _MAX_COLUMNS:
        lines.append(f"and {frame.shape[1] - _MAX_COLUMNS} more columns")
    structured = {"name": name, "type": "DataFrame", "row_count": frame.shape[0], "columns": columns}
    return "\n".join(lines), structured


def show(value: object) -> str:
    """Return a value as text, numbers with at most four decimals."""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.6g}"
    text = "no value" if value is None else str(value)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."


def _describe_column(frame: pd.DataFrame, position: int) -> dict[str, Any]:
    series = frame.iloc[:, position]
    missing = int(series.isna().sum())
    entry: dict[str, Any] = {
        "name": str(frame.columns[position]),
        "dtype": str(series.dtype),
        "missing_count": missing,
    }
    if is_number(series):
        entry["kind"] = "number"
        entry["summary"] = (
            f"number ({series.dtype}), min {show(plain(series.min()))}, mean {show(plain(series.mean()))}, "
            f"max {show(plain(series.max()))}"
        )
    else:
        values = _categories(series)
        entry["kind"] = "category" if values is not None else "other"
        entry["values"] = values
        shown = ", ".join(show(value) for value in (values or [])[:8])
        more = ", ..." if values is not None and len(values) > 8 else ""
        entry["summary"] = f"{series.dtype}" + (f", {len(values)} values: {shown}{more}" if values else "")
    if missing:
        entry["summary"] += f", {missing} missing"
    return entry


def _categories(series: pd.Series[Any]) -> list[str] | None:
    """Return the texts or booleans that occur, None when there are too many or they are something else."""
    values = set()
    for value in series.head(_SAMPLE_ROWS).dropna():
        if not isinstance(value, str | bool):
            return None
        values.add(value)
        if len(values) > _MAX_CATEGORIES:
            return None
    return sorted(str(value) for value in values)


def _mask(frame: pd.DataFrame, condition: Condition) -> pd.Series[bool]:
    import pandas as pd

    series = column_of(frame, condition.column)
    value: Any = condition.value
    if is_number(series):
        value = _number(value, condition.column)
    elif pd.api.types.is_bool_dtype(series):
        value = str(value).strip().lower() in ("true", "1", "1.0", "yes")
    elif pd.api.types.is_datetime64_any_dtype(series):
        value = pd.to_datetime(str(value), errors="coerce", utc=getattr(series.dtype, "tz", None) is not None)
    else:
        value = str(value)
        series = series.astype("string")
    operators = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
    mask: pd.Series[bool] = getattr(series, operators[condition.operator])(value).fillna(False).astype(bool)
    if condition.operator == "==" and not mask.any() and isinstance(value, str):
        _refuse_unknown_value(series, value, condition.column)
    return mask


def _refuse_unknown_value(series: pd.Series[Any], value: str, column: str) -> None:
    known = [str(other) for other in series.dropna().unique()[: _MAX_CATEGORIES * 10]]
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    if near or len(known) <= _MAX_GROUPS:
        raise QueryError(
            f"no row has {value!r} in {column!r}. Values there: {', '.join(near or known[:_MAX_GROUPS])}."
        )


def column_of(frame: pd.DataFrame, column: str | None) -> pd.Series[Any]:
    """Return a column by its name as text.

    Raises:
        QueryError: When there is none of that name; the message names similar ones.
    """
    names = [str(name) for name in frame.columns]
    if column is None:
        raise QueryError(f"a column is needed. Columns: {_listed(names)}.")
    if column in names:
        # By position: names may be no strings, or occur twice.
        return frame.iloc[:, names.index(column)]
    near = difflib.get_close_matches(column, names, n=3, cutoff=0.5)
    raise QueryError(
        f"there is no column {column!r}. {'Did you mean' if near else 'Columns:'} {_listed(near or names)}."
    )


def _check_type(series: pd.Series[Any], operation: Operation) -> None:
    if operation in _NUMERIC_OPERATIONS and not is_number(series):
        raise QueryError(
            f"the column {series.name!r} holds {series.dtype}, not numbers. Use value_counts or nunique."
        )


def _value_counts(frame: pd.DataFrame, column: str | None, about: str, base: dict[str, Any]) -> QueryAnswer:
    counts = column_of(frame, column).value_counts(dropna=True)
    groups = [{"group": _group(key), "value": int(count)} for key, count in counts.head(_MAX_GROUPS).items()]
    return _group_answer(f"rows per {column}{about}", groups, len(counts), {**base, "group_by": column})


def _grouped(
    frame: pd.DataFrame,
    series: pd.Series[Any],
    operation: Operation,
    group_by: str,
    about: str,
    base: dict[str, Any],
) -> QueryAnswer:
    results = series.groupby(column_of(frame, group_by), observed=True).agg(operation)
    groups = [
        {"group": _group(key), "value": plain(value)} for key, value in results.head(_MAX_GROUPS).items()
    ]
    title = f"{operation} of {series.name} per {group_by}{about}"
    return _group_answer(
        title, groups, len(results), {**base, "column": str(series.name), "group_by": group_by}
    )


def _group_answer(title: str, groups: list[dict[str, Any]], count: int, base: dict[str, Any]) -> QueryAnswer:
    shown = ", ".join(f"{group['group']} {show(group['value'])}" for group in groups)
    more = f" and {count - len(groups)} more" if count > len(groups) else ""
    return QueryAnswer(text=f"{title}: {shown or 'none'}{more}", structured={**base, "groups": groups})


def _rows(frame: pd.DataFrame, about: str, base: dict[str, Any]) -> QueryAnswer:
    head = frame.iloc[:_MAX_ROWS, :_MAX_COLUMNS]
    names = [str(name) for name in head.columns]
    rows = [
        {name: _json(value) for name, value in zip(names, row, strict=True)}
        for row in head.itertuples(index=False)
    ]
    lines = [", ".join(f"{name}={show(value)}" for name, value in row.items()) for row in rows]
    text = f"first {len(rows)} of {len(frame)} rows{about}:\n" + "\n".join(lines)
    return QueryAnswer(text=text, structured={**base, "rows": rows})


def is_number(series: pd.Series[Any]) -> bool:
    """Return True for a column of real numbers; booleans are none."""
    import pandas as pd

    kind = pd.api.types
    return bool(
        kind.is_numeric_dtype(series) and not kind.is_bool_dtype(series) and not kind.is_complex_dtype(series)
    )


def _number(value: object, column: str) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise QueryError(f"the column {column!r} holds numbers, and {value!r} is none.") from None


def plain(value: Any) -> Any:
    """Return a JSON value for a scalar of numpy or pandas; None for a missing one."""
    import pandas as pd

    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, int | str | bool | None) else str(value)


def _json(value: Any) -> Any:
    simple = plain(value)
    return show(simple) if isinstance(simple, str) else simple


def _group(key: object) -> str:
    return show(plain(key))


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:_MAX_GROUPS])

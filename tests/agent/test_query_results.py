"""The typed operations say what pandas says of the same frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research_kit.agent.queries import Condition, QueryError, frame_query

NUMERIC = ("mean", "median", "sum", "std")
ALL = (*NUMERIC, "min", "max", "nunique", "count_missing")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda series, value: series == value,
    "!=": lambda series, value: series != value,
    "<": lambda series, value: series < value,
    "<=": lambda series, value: series <= value,
    ">": lambda series, value: series > value,
    ">=": lambda series, value: series >= value,
}

maybe = st.booleans()
texts = st.sampled_from(["Oslo", "Bergen", "", "a'b", '"; DROP', "`", "ß", "日本", "$1"])
small = st.integers(-5, 5)
# Beyond 2**53 a float is not exact; the sums still fit into 64 bits, where pandas' own end.
big = st.integers(-(2**58), 2**58)
floats = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3))
moments = st.integers(0, 10**6).map(lambda count: pd.Timestamp("2024-01-01") + pd.Timedelta(count, "min"))


def missing(values: st.SearchStrategy[Any], nothing: Any) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.just(nothing))


def column(dtype: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(dtype), values)


COLUMNS = {
    "float64": missing(st.one_of(floats, st.sampled_from([0.1, 0.2, 1e12])), math.nan),
    "float32": missing(small.map(float), math.nan),
    "int64": st.one_of(small, big),
    "int8": small,
    "uint64": st.integers(0, 2**62),
    "Int64": missing(st.one_of(small, big), pd.NA),
    "Float64": missing(floats, pd.NA),
    "bool": st.booleans(),
    "boolean": missing(st.booleans(), pd.NA),
    "str": missing(texts, None),
    "string": missing(texts, pd.NA),
    "object": missing(texts, None),
    "datetime64[ns]": missing(moments, pd.NaT),
    "datetime64[s]": missing(moments, pd.NaT),
    "datetime64[us, Europe/Oslo]": missing(moments, pd.NaT),
    "timedelta64[ns]": missing(small.map(timedelta), pd.NaT),
    "category": missing(texts, None),
    "ordered": missing(st.sampled_from(["low", "mid", "high"]), None),
    "period[M]": missing(st.sampled_from([pd.Period("2024-01"), pd.Period("2023-11")]), pd.NaT),
    "decimal": missing(st.sampled_from([Decimal("1.10"), Decimal("10"), Decimal("2.5")]), None),
}


def series_of(dtype: str, values: list[Any]) -> pd.Series:
    if dtype == "category":
        # Two categories that never occur, one before and one behind the others.
        categories = ["Aarhus", *sorted({value for value in values if value is not None}), "Zürich"]
        return pd.Series(pd.Categorical(values, categories=categories))
    if dtype == "ordered":
        return pd.Series(pd.Categorical(values, categories=["low", "mid", "high", "top"], ordered=True))
    if dtype == "datetime64[us, Europe/Oslo]":
        return pd.Series(values, dtype="datetime64[us]").dt.tz_localize("UTC").dt.tz_convert("Europe/Oslo")
    return pd.Series(values, dtype="object" if dtype == "decimal" else dtype)


@st.composite
def frames(draw: st.DrawFn) -> tuple[pd.DataFrame, str, str]:
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=2))
    count = draw(st.integers(0, 12))
    columns = [
        series_of(kind, draw(st.lists(COLUMNS[kind], min_size=count, max_size=count))) for kind in kinds
    ]
    frame = pd.concat(columns, axis="columns")
    # No strings, and the same name twice: the first is meant.
    frame.columns = pd.Index(
        draw(st.sampled_from([["x", "y"], [0, ("a", 1)], ['a "b"', "a `b`"]])), tupleize_cols=False
    )
    return frame, str(frame.columns[0]), str(frame.columns[1])


def expected(frame: pd.DataFrame, operation: str, value: int, group: int | None) -> Any:
    """Return what pandas says; its refusals as None."""
    series = frame.iloc[:, value]
    try:
        if group is None:
            if operation == "count_missing":
                return int(series.isna().sum())
            if len(series) == 0 and operation not in ("sum", "nunique"):
                return None
            return getattr(series, operation)()
        grouped = series.groupby(frame.iloc[:, group], observed=True)
        return list(grouped.agg(operation).items())
    except (TypeError, ValueError):
        return "refused"


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | np.floating) and not math.isfinite(wanted):
        return found is None
    if wanted is None or wanted is pd.NA or wanted is pd.NaT:
        return found is None
    if isinstance(wanted, bool | np.bool_):
        return bool(wanted) is found
    if isinstance(wanted, int | np.integer):
        return found == int(wanted)
    if isinstance(wanted, float | np.floating):
        # pandas adds float32 as float32.
        return math.isclose(found, float(wanted), rel_tol=1e-6, abs_tol=1e-6)
    return found == str(wanted)


def shown(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def column_of_numbers(series: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


many = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@many
@given(frames(), st.sampled_from(ALL))
def test_one_value_is_what_pandas_says(drawn: tuple[pd.DataFrame, str, str], operation: Any) -> None:
    """Missing values, categories, large numbers, time zones and odd names change nothing."""
    frame, name, _ = drawn
    wanted = expected(frame, operation, 0, None)
    is_number = column_of_numbers(frame.iloc[:, 0])
    if operation in NUMERIC and not is_number:
        with pytest.raises(QueryError, match="not numbers"):
            frame_query(frame, operation, column=name)
        return
    if wanted == "refused" and isinstance(frame.dtypes.iloc[0], pd.CategoricalDtype):
        with pytest.raises(QueryError, match="the values do not allow it"):
            frame_query(frame, operation, column=name)
        return
    found = frame_query(frame, operation, column=name)
    if isinstance(wanted, str) and wanted == "refused":
        # pandas cannot compare None with texts; here a missing value is left out, as everywhere.
        assert frame.iloc[:, 0].dtype == object
        return
    assert same(found.structured["value"], wanted), (found.structured["value"], wanted)
    assert found.structured["row_count"] == len(frame)


@many
@given(frames(), st.sampled_from([*NUMERIC, "min", "max", "nunique"]))
def test_groups_are_what_pandas_says(drawn: tuple[pd.DataFrame, str, str], operation: Any) -> None:
    """Groups come in pandas' order, and those without rows not at all."""
    frame, name, group = drawn
    wanted = expected(frame, operation, 0, 1)
    try:
        found = frame_query(frame, operation, column=name, group_by=group)
    except QueryError:
        return  # the same refusals as without groups, which the test before has looked at
    if wanted == "refused":
        assert frame.iloc[:, 0].dtype == object
        return
    groups = [(entry["group"], entry["value"]) for entry in found.structured["groups"]]
    assert [key for key, _ in groups] == [shown(key) for key, _ in wanted]
    assert all(same(value, other) for (_, value), (_, other) in zip(groups, wanted, strict=True)), (
        groups,
        wanted,
    )


@many
@given(frames())
def test_value_counts_are_what_pandas_says(drawn: tuple[pd.DataFrame, str, str]) -> None:
    """Equally frequent values keep the order in which they come first; unused categories are counted as 0."""
    frame, name, _ = drawn
    series = frame.iloc[:, 0]
    counts = series.value_counts(dropna=True)
    found = frame_query(frame, "value_counts", column=name).structured["groups"]
    assert sorted((entry["group"], entry["value"]) for entry in found) == sorted(
        (shown(key), int(count)) for key, count in counts.items()
    )
    assert [entry["value"] for entry in found] == list(counts)
    if not isinstance(series.dtype, pd.CategoricalDtype):
        first = [shown(value) for value in series.dropna().drop_duplicates()]
        by_count: dict[int, list[str]] = {}
        for entry in found:
            by_count.setdefault(entry["value"], []).append(entry["group"])
        assert all(group == sorted(group, key=first.index) for group in by_count.values())


@many
@given(frames(), st.sampled_from(sorted(COMPARE)), st.data())
def test_conditions_select_what_pandas_selects(
    drawn: tuple[pd.DataFrame, str, str], operator: Any, data: st.DataObject
) -> None:
    """A condition on numbers, booleans and points in time compares as pandas does, missing values too."""
    frame, name, _ = drawn
    series = frame.iloc[:, 0]
    kinds = pd.api.types
    if kinds.is_bool_dtype(series):
        value: Any = data.draw(st.booleans())
        compared: Any = value
    elif kinds.is_numeric_dtype(series):
        value = compared = data.draw(
            st.one_of(small, floats, big, st.sampled_from([*series.dropna()] or [0]))
        )
        value = value.item() if hasattr(value, "item") else value
    elif kinds.is_datetime64_any_dtype(series):
        compared = data.draw(moments)
        value = str(compared)
        compared = compared.tz_localize(None if series.dt.tz is None else "UTC")
    else:
        value = compared = data.draw(texts)
        series = series.astype("string")
    mask = COMPARE[operator](series, compared).fillna(False).astype(bool)
    condition = Condition(column=name, operator=operator, value=value)
    is_text = not (kinds.is_numeric_dtype(series) or kinds.is_datetime64_any_dtype(series))
    if operator == "==" and is_text and not mask.any() and series.notna().any():
        with pytest.raises(QueryError, match="no row has"):
            frame_query(frame, "count", where=[condition])
        return
    found = frame_query(frame, "count", where=[condition])
    assert found.structured["value"] == int(mask.sum()), (value, list(series))


EXPRESSIONS = (
    "x > 1",
    "x != 2 and y == 'Oslo'",
    "not (x > 1)",
    "~(x <= 1) | y in ['Oslo', 'Bergen']",
    "x > 1 & y != 'Oslo'",
    "-1 < x <= 3 or y not in ('Bergen',)",
    "x % 3 == 1",
    "x * 2 + 1 >= 3 and x / 2 < 2",
    "-x < 0",
    "x == [1, 2, 3]",
    "x - x == 0",
    "y > 'Bergen'",
    "y == y",
    "not y == 'Oslo'",
    "x / x == 1",
    "x in [1, 2] and not y in ['Oslo']",
)


@many
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(["float64", "float32", "int64", "int8", "Int64"]),
    st.sampled_from(["str", "string"]),
    st.data(),
)
def test_expressions_select_what_pandas_selects(
    query: str, numbers: str, words: str, data: st.DataObject
) -> None:
    """Comparisons, arithmetic and missing values mean what they mean in `DataFrame.query`."""
    count = data.draw(st.integers(0, 12))
    nothing: Any = pd.NA if numbers == "Int64" else math.nan
    values = small if numbers in ("int64", "int8") else missing(small.map(int), nothing)
    frame = pd.DataFrame(
        {
            "x": pd.Series(data.draw(st.lists(values, min_size=count, max_size=count)), dtype=numbers),
            "y": pd.Series(data.draw(st.lists(COLUMNS[words], min_size=count, max_size=count)), dtype=words),
        }
    )
    mask = frame.eval(query, engine="python")
    wanted = mask.fillna(False).astype(bool)
    assert frame_query(frame, "count", query=query).structured["value"] == int(wanted.sum()), frame


def test_rows_are_the_frames_own_values() -> None:
    """Rows come back as the notebook has them: only their numbers were computed elsewhere."""
    frame = pd.DataFrame({"at": pd.to_datetime(["2024-01-01", None], utc=True), "what": [{"a": [1]}, None]})
    frame["n"] = [2**60 + 1, 5]
    found = frame_query(frame, "rows", query="n > 5").structured
    assert found["rows"] == [{"at": "2024-01-01 00:00:00+00:00", "what": "{'a': [1]}", "n": 2**60 + 1}]
    assert frame_query(frame, "rows").structured["row_count"] == 2


@pytest.mark.parametrize("operation", ["count", "mean", "value_counts", "rows", "nunique", "sum"])
def test_empty_frames_answer(operation: Any) -> None:
    """A frame without rows, or without columns, gives an answer or says what is missing."""
    empty = pd.DataFrame({"x": pd.Series([], dtype="float64")})
    found = frame_query(empty, operation, column="x", query="x > 1").structured
    assert found.get("value", found["row_count"]) in (0, None)
    assert frame_query(pd.DataFrame(), "count").structured["value"] == 0
    with pytest.raises(QueryError, match="there is no column 'x'"):
        frame_query(pd.DataFrame(), "nunique", column="x")

"""The kernel's tools on real variables, friendly and hostile."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research_kit.agent import ToolOutcome, ToolServer, build_kernel_server
from research_kit.agent.tools import is_read_only


class Explosive:
    """Whatever is asked of it, it fails."""

    def __repr__(self) -> str:
        raise RuntimeError("do not look at me")

    def __len__(self) -> int:
        raise RuntimeError("do not measure me")


@pytest.fixture
def orders() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "city": ["Oslo", "Bergen", "Oslo", "Tromsø", None],
            "price": [10.0, 20.0, 30.0, math.nan, 50.0],
            "quantity": [1, 2, 3, 4, 5],
            "is_paid": [True, False, True, True, False],
            "day": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]),
        }
    )


@pytest.fixture
def namespace(orders: pd.DataFrame) -> dict[str, Any]:
    return {
        "orders": orders,
        "threshold": 3,
        "names": ["a", "b"],
        "matrix": np.zeros((3, 4)),
        "explosive": Explosive(),
        "_hidden": 1,
        "__name__": "__main__",
        "In": [""],
        "Out": {},
        "os": os,
        "helper": lambda: None,
        "Explosive": Explosive,
        "exit": None,
        'na"me; import os': 5,
        7: "not a name",
    }


@pytest.fixture
def kernel(namespace: dict[str, Any]) -> Iterator[ToolServer]:
    server = ToolServer("kernel", build_kernel_server(lambda: namespace))
    yield server
    server.close()


def query(kernel: ToolServer, **arguments: Any) -> ToolOutcome:
    return kernel.call_tool("query_dataframe", {"name": "orders"} | arguments)


def test_all_tools_are_read_only(kernel: ToolServer) -> None:
    """Each of the tools says that it changes nothing."""
    tools = kernel.list_tools()
    assert {tool.name for tool in tools} == {
        "list_variables",
        "describe_variable",
        "query_dataframe",
        "query_sql",
        "plot_dataframe",
    }
    assert all(is_read_only(tool) for tool in tools)


def test_list_variables_shows_the_users_own(kernel: ToolServer) -> None:
    """Only the user's variables are listed, with type and size, and no object's code is run."""
    outcome = kernel.call_tool("list_variables")
    assert outcome.structured is not None
    rows = {row["name"]: row for row in outcome.structured["variables"]}
    assert set(rows) == {"orders", "threshold", "names", "matrix", "explosive", 'na"me; import os'}
    assert rows["orders"] == {
        "name": "orders",
        "type": "DataFrame",
        "size": "5 rows x 5 columns",
        "is_table": True,
    }
    assert rows["matrix"]["size"] == "shape 3 x 4"
    assert "names: list, length 2" in outcome.text


def test_list_variables_of_an_empty_notebook() -> None:
    """An empty notebook is said to be empty."""
    server = ToolServer("kernel", build_kernel_server(dict))
    assert server.call_tool("list_variables").text == "There are no variables."
    server.close()


def test_describe_a_table(kernel: ToolServer) -> None:
    """A table is described by columns, types, missing values and a numeric summary."""
    outcome = kernel.call_tool("describe_variable", {"name": "orders"})
    assert outcome.structured is not None
    columns = {column["name"]: column for column in outcome.structured["columns"]}
    assert columns["price"]["missing_count"] == 1
    assert "min 10, mean 27.5, max 50, 1 missing" in columns["price"]["summary"]
    assert columns["city"]["values"] == ["Bergen", "Oslo", "Tromsø"]
    assert columns["is_paid"]["values"] == ["False", "True"]
    assert columns["day"]["kind"] == "other"


@pytest.mark.parametrize("name", ["explosive", "threshold", "names", "matrix", 'na"me; import os'])
def test_describe_anything_runs_no_foreign_code(kernel: ToolServer, name: str) -> None:
    """Any variable can be described, also one whose methods fail."""
    outcome = kernel.call_tool("describe_variable", {"name": name})
    assert not outcome.is_error
    assert outcome.text.startswith(name)


def test_wide_and_long_tables_stay_small(namespace: dict[str, Any], kernel: ToolServer) -> None:
    """A description does not grow with the table."""
    namespace["wide"] = pd.DataFrame({f"c{number}": ["x" * 500] * 3 for number in range(2000)})
    namespace["long"] = pd.DataFrame({"id": [f"id{number}" for number in range(5000)]})
    assert len(kernel.call_tool("describe_variable", {"name": "wide"}).text) < 10_000
    assert len(kernel.call_tool("describe_variable", {"name": "long"}).text) < 1_000
    assert (
        len(
            kernel.call_tool(
                "query_dataframe", {"name": "long", "operation": "value_counts", "column": "id"}
            ).text
        )
        < 2_000
    )
    assert len(kernel.call_tool("query_dataframe", {"name": "wide", "operation": "rows"}).text) < 20_000


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"operation": "count"}, 5),
        ({"operation": "mean", "column": "price"}, 27.5),
        ({"operation": "median", "column": "price"}, 25.0),
        ({"operation": "sum", "column": "quantity"}, 15),
        ({"operation": "min", "column": "price"}, 10.0),
        ({"operation": "max", "column": "day"}, "2024-01-05 00:00:00"),
        ({"operation": "nunique", "column": "city"}, 3),
        ({"operation": "std", "column": "quantity"}, pytest.approx(1.5811388)),
        ({"operation": "count", "where": [{"column": "city", "value": "Oslo"}]}, 2),
        ({"operation": "count", "where": [{"column": "price", "operator": ">", "value": 15}]}, 3),
        ({"operation": "count", "where": [{"column": "price", "operator": ">", "value": "15"}]}, 3),
        ({"operation": "count", "where": [{"column": "is_paid", "value": True}]}, 3),
        ({"operation": "count", "where": [{"column": "day", "operator": ">=", "value": "2024-01-04"}]}, 2),
        ({"operation": "count", "where": [{"column": "city", "operator": "!=", "value": "Oslo"}]}, 2),
        (
            {
                "operation": "sum",
                "column": "quantity",
                "where": [
                    {"column": "city", "value": "Oslo"},
                    {"column": "price", "operator": "<", "value": 20},
                ],
            },
            1,
        ),
        (
            {
                "operation": "mean",
                "column": "price",
                "where": [{"column": "quantity", "operator": ">", "value": 99}],
            },
            None,
        ),
    ],
)
def test_query_computes_one_value(kernel: ToolServer, arguments: dict[str, Any], value: object) -> None:
    """Each operation gives what pandas gives, as text and as structured content."""
    outcome = query(kernel, **arguments)
    assert outcome.structured is not None, outcome.text
    assert outcome.structured["value"] == value


def test_query_gives_groups(kernel: ToolServer) -> None:
    """Counts per value and statistics per group come as small tables."""
    counts = query(kernel, operation="value_counts", column="city")
    assert counts.text == "rows per city: Oslo 2, Bergen 1, Tromsø 1"
    means = query(kernel, operation="mean", column="quantity", group_by="city")
    assert means.structured is not None
    assert {"group": "Oslo", "value": 2.0} in means.structured["groups"]
    per_city = query(kernel, operation="count", group_by="city")
    assert per_city.structured is not None
    assert per_city.structured["groups"] == counts.structured["groups"]  # type: ignore[index]


def test_query_gives_rows(kernel: ToolServer) -> None:
    """The first rows are bounded in number and written as JSON values."""
    outcome = query(kernel, operation="rows", where=[{"column": "city", "value": "Bergen"}])
    assert outcome.structured is not None
    assert outcome.structured["rows"] == [
        {"city": "Bergen", "price": 20.0, "quantity": 2, "is_paid": False, "day": "2024-01-02 00:00:00"}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ordres", "operation": "count"}, "no variable 'ordres'.*Did you mean 'orders'"),
        ({"name": "threshold", "operation": "count"}, "'threshold' is a int, not a DataFrame.*orders"),
        ({"operation": "mean", "column": "prize"}, "no column 'prize'. Did you mean 'price'"),
        ({"operation": "mean"}, "a column is needed. Columns: 'city'"),
        ({"operation": "mean", "column": "city"}, "'city' holds .*, not numbers"),
        ({"operation": "count", "where": [{"column": "city", "value": "Osloo"}]}, "no row has 'Osloo'.*Oslo"),
        ({"operation": "count", "where": [{"column": "price", "value": "dear"}]}, "'dear' is none"),
        ({"operation": "mean", "column": "price", "group_by": "town"}, "no column 'town'"),
        ({"operation": "eval", "column": "price"}, "eval"),
    ],
)
def test_query_errors_name_candidates(kernel: ToolServer, arguments: dict[str, Any], message: str) -> None:
    """An impossible query names the value, the cause, and what would fit."""
    outcome = query(kernel, **arguments)
    assert outcome.is_error
    assert pd.Series([outcome.text]).str.contains(message, regex=True).all(), outcome.text


def test_text_is_never_evaluated(kernel: ToolServer, namespace: dict[str, Any]) -> None:
    """Code in any argument stays text."""
    namespace["orders"]["@__import__('os').getpid()"] = 1
    outcome = query(kernel, operation="sum", column="@__import__('os').getpid()")
    assert outcome.structured is not None
    assert outcome.structured["value"] == 5
    assert query(kernel, operation="count", where=[{"column": "city", "value": "' or 1==1"}]).is_error


def test_nothing_is_changed(kernel: ToolServer, orders: pd.DataFrame) -> None:
    """The tools leave the table as it was."""
    before = orders.copy(deep=True)
    kernel.call_tool("describe_variable", {"name": "orders"})
    for operation in ("count", "mean", "value_counts", "rows"):
        query(kernel, operation=operation, column="price", where=[{"column": "city", "value": "Oslo"}])
    pd.testing.assert_frame_equal(orders, before)


def test_odd_column_names(namespace: dict[str, Any], kernel: ToolServer) -> None:
    """Numbers, tuples and repeated names are columns like others."""
    frame = pd.DataFrame([[1, 2, 3], [4, 5, 6]], columns=pd.Index([0, ("a", "b"), 0], tupleize_cols=False))
    namespace["odd"] = frame
    assert not kernel.call_tool("describe_variable", {"name": "odd"}).is_error
    outcome = kernel.call_tool("query_dataframe", {"name": "odd", "operation": "sum", "column": "0"})
    assert outcome.structured is not None
    assert outcome.structured["value"] == 5
    assert not kernel.call_tool("query_dataframe", {"name": "odd", "operation": "rows"}).is_error


def test_variables_of_the_moment(namespace: dict[str, Any], kernel: ToolServer) -> None:
    """A variable defined between two calls is seen by the second."""
    kernel.call_tool("list_variables")
    namespace["later"] = pd.DataFrame({"x": [1, 2]})
    assert query(kernel, name="later", operation="count").structured == {
        "name": "later",
        "operation": "count",
        "row_count": 2,
        "value": 2,
    }


@pytest.mark.parametrize("operation", ["count", "min", "nunique", "value_counts", "mean", "rows"])
@pytest.mark.parametrize("column", ["lists", "mixed", "complex", "period", "category", "nothing", "interval"])
def test_columns_of_any_kind(
    namespace: dict[str, Any],
    kernel: ToolServer,
    capfd: pytest.CaptureFixture[str],
    operation: str,
    column: str,
) -> None:
    """Whatever a column holds, a query answers or says why not, and prints nothing."""
    namespace["zoo"] = pd.DataFrame(
        {
            "lists": [[1], [2]],
            "mixed": [1, "a"],
            "complex": [1j, 2j],
            "period": pd.period_range("2024-01", periods=2, freq="M"),
            "category": pd.Categorical(["a", "b"]),
            "nothing": [None, None],
            "interval": pd.interval_range(0, 2),
        },
        index=[1, 1],
    )
    assert not kernel.call_tool("describe_variable", {"name": "zoo"}).is_error
    outcome = query(kernel, name="zoo", operation=operation, column=column)
    assert not outcome.is_error or outcome.text.startswith("Cannot compute")
    assert capfd.readouterr().err == ""


def test_building_the_server_leaves_logging_alone() -> None:
    """The kernel's own logging is not configured by the MCP SDK."""
    code = """
import logging
from research_kit.agent import build_kernel_server
build_kernel_server(dict)
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Expressions, SQL and charts over the notebook's frames, friendly and hostile."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot
import pandas as pd
import pytest

from research_kit.agent import ToolServer, build_kernel_server
from research_kit.agent.queries import Limits, QueryCall, QueryError, sql_query

ORDERS = pd.DataFrame(
    {
        "city": ["Oslo", "Bergen", "Oslo", "Tromsø", None],
        "price in €": [10.0, 20.0, 30.0, float("nan"), 50.0],
        "quantity": [1, 2, 3, 4, 5],
        "is_paid": [True, False, True, True, False],
        "day": pd.date_range("2024-01-01", periods=5),
    },
    index=[0, 0, 1, 1, 2],
)
CITIES = pd.DataFrame({"city": pd.Categorical(["Oslo", "Bergen"]), "people": [700_000, 290_000], 0: [1, 2]})
ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(1000000) b"


@pytest.fixture(scope="module")
def kernel() -> Iterator[ToolServer]:
    namespace = {"orders": ORDERS, "cities": CITIES, "_hidden": ORDERS, "threshold": 3}
    server = ToolServer("kernel", build_kernel_server(lambda: namespace))
    yield server
    server.close()


def count(kernel: ToolServer, query: str) -> Any:
    arguments = {"name": "orders", "operation": "count", "query": query}
    return kernel.call_tool("query_dataframe", arguments)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("quantity > 2", 3),
        ("city == 'Oslo' and quantity * 2 >= 6", 1),
        ("city in ['Oslo', 'Bergen'] and not is_paid", 1),
        ("`price in €` / quantity > 9.5", 4),
        ("1 < quantity <= 3", 2),
        ("is_paid", 3),
        ("day >= '2024-01-04'", 2),
    ],
)
def test_expression_selects_rows(kernel: ToolServer, query: str, value: int) -> None:
    """Columns, values, comparisons and arithmetic select rows, also where row labels repeat."""
    outcome = count(kernel, query)
    assert outcome.structured is not None, outcome.text
    assert outcome.structured["value"] == value


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("__import__('os').system('true')", "contains Call"),
        ("city.str.len() > 3", "contains Call"),
        ("quantity.values", "contains Attribute"),
        ("orders[0]", "contains Subscript"),
        ("@ORDERS", "is not an expression"),
        ("(lambda: 1)()", "contains"),
        ("[x for x in city]", "contains ListComp"),
        ("city == 'x' * 10000000000", "contains BinOp"),
        ("quantity > 9 ** 9 ** 9", "contains Pow"),
        ("quantity = 3", "is not an expression"),
        ("quantity + 1", "not true or false for each row"),
        ("1 == 1", "not true or false for each row"),
        ("threshold > 1", "'threshold' is not defined. Columns: 'city'"),
        ("city == Oslo", "texts need quotes"),
        ("quantity > 'many'", "the values do not allow it"),
        ("(" * 300 + "quantity" + ")" * 300, "is not an expression"),
        ("quantity > 1 or " * 100, "more than"),
    ],
)
def test_expression_with_anything_else_is_refused(kernel: ToolServer, query: str, message: str) -> None:
    """Nothing that calls, looks inside, assigns or grows without bound reaches pandas."""
    outcome = count(kernel, query)
    assert outcome.is_error
    assert message in outcome.text


def test_sql_joins_and_groups(kernel: ToolServer) -> None:
    """A SELECT sees every frame under its name, in the notebook's own types."""
    sql = (
        "SELECT city, people, sum(quantity) AS sold FROM orders JOIN cities USING (city) "
        "GROUP BY ALL ORDER BY city"
    )
    outcome = kernel.call_tool("query_sql", {"sql": sql})
    assert outcome.structured == {
        "columns": ["city", "people", "sold"],
        "rows": [
            {"city": "Bergen", "people": 290_000, "sold": 2},
            {"city": "Oslo", "people": 700_000, "sold": 4},
        ],
        "is_truncated": False,
    }
    long = kernel.call_tool("query_sql", {"sql": "SELECT range AS n FROM range(1000)"})
    assert long.structured is not None
    assert (len(long.structured["rows"]), long.structured["is_truncated"]) == (50, True)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled"),
        ("SELECT * FROM glob('/*')", "disabled"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_parquet('http://127.0.0.1:9/x')", "disabled"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("SELECT * FROM _hidden", "does not exist"),
        ("SELECT * FROM ORDERS_COPY", "Tables here: orders, cities"),
        ("COPY orders TO '/tmp/x.csv'", "only a single SELECT"),
        ("SELECT 1; DROP TABLE orders", "only a single SELECT"),
        ("UPDATE orders SET quantity = 0", "only a single SELECT"),
        ("CREATE TABLE t AS SELECT 1", "only a single SELECT"),
        ("SET enable_external_access = true", "only a single SELECT"),
        ("ATTACH '/tmp/x.db'", "only a single SELECT"),
        ("INSTALL httpfs", "only a single SELECT"),
        ("PRAGMA database_list", "only a single SELECT"),
        ("", "only a single SELECT"),
        ("SELECT nothing FROM orders", "nothing"),
    ],
)
def test_sql_reads_only_the_frames(kernel: ToolServer, sql: str, message: str) -> None:
    """No file, network, setting or other variable is reached, and nothing is changed."""
    before = ORDERS.copy(deep=True)
    outcome = kernel.call_tool("query_sql", {"sql": sql})
    assert outcome.is_error, outcome.text
    assert message.lower() in outcome.text.lower()
    pd.testing.assert_frame_equal(ORDERS, before)


def watches() -> list[threading.Thread]:
    """Return the threads that watch a running statement."""
    return [thread for thread in threading.enumerate() if thread.name == "research-kit-query-watch"]


async def test_sql_ends_when_it_takes_too_long_or_is_cancelled(kernel: ToolServer) -> None:
    """A statement without end is ended by its deadline, and by whoever stops the message."""
    with pytest.raises(QueryError, match=r"longer than 0.2 s"):
        sql_query(ENDLESS, {}, call=QueryCall(Limits(time_s=0.2)))
    assert watches() == []
    call = asyncio.create_task(kernel.acall_tool("query_sql", {"sql": ENDLESS}))
    deadline = time.monotonic() + 30
    while not watches():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    call.cancel()
    while watches():
        assert time.monotonic() < deadline, "the statement goes on"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "scatter", "x": "quantity", "y": "price in €", "by": "city"}, "3 points"),
        ({"kind": "line", "x": "day", "y": "quantity"}, "5 points"),
        ({"kind": "bar", "x": "city"}, "3 bars"),
        ({"kind": "bar", "x": "city", "y": "quantity", "by": "is_paid"}, "3 bars"),
        (
            {"kind": "histogram", "x": "quantity", "query": "quantity > 1"},
            "4 values from 2 to 5 where quantity",
        ),
        ({"kind": "box", "x": "city", "y": "quantity", "title": "$\\frac{ <b>&"}, "3 boxes over 4 rows"),
    ],
)
def test_charts_are_pictures(kernel: ToolServer, arguments: dict[str, Any], text: str) -> None:
    """Each kind of chart is a PNG beside a text that says what it shows; the notebook's figures stay."""
    figures = matplotlib.pyplot.get_fignums()
    outcome = kernel.call_tool("plot_dataframe", {"name": "orders"} | arguments)
    [image] = outcome.images
    assert text in outcome.text
    assert base64.b64decode(image.base64_text).startswith(b"\x89PNG")
    assert matplotlib.pyplot.get_fignums() == figures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "scatter", "x": "quantity", "y": "city"}, "'city' holds .*, not numbers"),
        ({"kind": "line", "x": "quantity"}, "needs a column for 'y'"),
        ({"kind": "bar", "x": "town"}, "no column 'town'"),
        ({"kind": "bar", "x": "city", "query": "quantity > 99"}, "no row has values"),
        ({"kind": "bar", "x": "city", "query": "exec('x')"}, "contains Call"),
        ({"kind": "pie", "x": "city"}, "'bar', 'box'"),
        ({"name": "threshold", "kind": "bar", "x": "city"}, "not a DataFrame"),
    ],
)
def test_charts_that_cannot_be_drawn_say_why(
    kernel: ToolServer, arguments: dict[str, Any], message: str
) -> None:
    """A chart that does not suit the table names the column and the cause."""
    outcome = kernel.call_tool("plot_dataframe", {"name": "orders"} | arguments)
    assert outcome.is_error
    assert pd.Series([outcome.text]).str.contains(message).all(), outcome.text

"""What a query may use is bounded for real: time, memory, files, what comes back, and what it can see."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from research_kit.agent import ToolServer, build_kernel_server
from research_kit.agent.queries import Limits, QueryCall, QueryError, frame_query, sql_query

MEMORY_BYTES = 400_000_000
LIMITS = Limits(memory_bytes=MEMORY_BYTES)
HASTY = Limits(time_s=1.0, memory_bytes=MEMORY_BYTES)
ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(1000000) b"


class Unreadable:
    """No text can be made of it."""

    def __str__(self) -> str:
        raise RuntimeError("do not look at me")


@pytest.fixture
def namespace() -> dict[str, Any]:
    return {"orders": pd.DataFrame({"city": ["Oslo", "Bergen", "Oslo"], "n": [1, 2, 3]})}


@pytest.fixture
def kernel(namespace: dict[str, Any]) -> Iterator[ToolServer]:
    server = ToolServer("kernel", build_kernel_server(lambda: namespace, limits=LIMITS))
    yield server
    server.close()


def children(parent: int | None = None) -> list[psutil.Process]:
    """Return the processes that run queries for a kernel."""
    found = []
    for child in psutil.Process(parent).children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "child.py" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def hasty(namespace: dict[str, Any]) -> Iterator[ToolServer]:
    server = ToolServer("kernel", build_kernel_server(lambda: namespace, limits=HASTY))
    yield server
    server.close()


HUNGRY = [
    "SELECT list_sum(range(1000000000))",
    "SELECT length(repeat('x', 4000000000))",
    "SELECT length(repeat('x', 1500000000))",
    "SELECT length(rpad('x', 2000000000, 'y'))",
    "SELECT length(printf('%2000000000d', 1))",
    "SELECT length(format('{:>2000000000}', 'x'))",
    "SELECT array_to_string(list_resize([1], 2000000000), ',')",
    "SELECT list(range) FROM range(1000000000)",
    "SELECT length(string_agg(repeat('x', 1000), '')) FROM range(100000000)",
    "SELECT count(DISTINCT range) FROM range(1000000000)",
    "SELECT histogram(range) FROM range(1000000000)",
    "SELECT * FROM range(1000000000) ORDER BY hash(range)",
    "SELECT row_number() OVER (ORDER BY hash(a.range)) FROM range(1000000) a, range(1000) b",
    "SELECT count(*) FROM range(1000000000) a JOIN range(1000000000) b USING (range)",
    "WITH RECURSIVE t(a) AS (SELECT repeat('x', 100) UNION ALL SELECT a || a FROM t) SELECT length(a) FROM t",
    "SELECT map_from_entries(list((range, range))) FROM range(100000000)",
    "SELECT list_sort(list_transform(range(300000000), lambda x: hash(x)))[1]",
    "SELECT json_array_length(to_json(range(200000000)))",
    "SELECT bit_count(repeat('1', 2000000000)::BIT)",
    "SELECT md5(repeat('x', 3000000000))",
    "SELECT length(list_reduce(list_transform(range(60), lambda x: repeat('x', 99)), lambda a, b: a || a))",
    "SELECT unnest(range(1000000000)) AS n ORDER BY hash(n) LIMIT 1",
]
SLOW = [
    ENDLESS,
    "SELECT count(*) FROM orders a, orders b, orders c, range(10000000000)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT n*7%991 FROM t) SELECT max(n) FROM t, range(9999999999)",
    "SELECT count(*) FROM generate_series(1, 100000000000)",
    "SELECT sum(sin(range)) FROM range(100000000000)",
    "SELECT count(*) FROM range(10000000000) WHERE regexp_matches(range::VARCHAR, '(1+)+$')",
    "SELECT count(*) FROM range(10000000000) "
    "WHERE regexp_matches(repeat('a', (range % 99999)::INTEGER), '(a|aa|aaa)*b')",
    "SELECT max(levenshtein(repeat('ab', 5000 + range), repeat('ba', 5000))) FROM range(1000000)",
    "SELECT max(damerau_levenshtein(repeat('ab', 5000), repeat('ba', 5000 + range))) FROM range(1000000)",
    "SELECT max(factorial(30)) FROM range(100000000000)",
    "SELECT count(*) FROM (SELECT random() AS r FROM range(100000000000)) WHERE r > 2",
    "SELECT sum(x) FROM (SELECT unnest(range(10000)) AS x FROM range(1000000000))",
    "SELECT count(*) FROM orders a CROSS JOIN LATERAL (SELECT * FROM range(100000000000)) b",
    "SELECT max(strptime('2024', '%Y') + to_days(range % 9)) FROM range(100000000000)",
    "FROM range(100000000000) SELECT median(range % 3)",
]


@pytest.mark.parametrize("sql", [*HUNGRY, *SLOW])
def test_a_statement_beyond_the_limits_ends(kernel: ToolServer, hasty: ToolServer, sql: str) -> None:
    """It is refused, the kernel's memory does not grow, and the next statement is answered."""
    kernel.call_tool("query_sql", {"sql": "SELECT 1"})
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = hasty.call_tool("query_sql", {"sql": sql})
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) * 1024
    assert outcome.is_error, outcome.text
    assert any(word in outcome.text for word in ("GB of memory", "longer than 1 s"))
    assert grown_bytes < 50_000_000
    after = kernel.call_tool("query_sql", {"sql": "SELECT sum(n) AS total FROM orders"})
    assert after.structured is not None, after.text
    assert after.structured["rows"] == [{"total": 6}]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("query_dataframe", {"operation": "nunique", "column": "n"}),
        ("query_dataframe", {"operation": "value_counts", "column": "n"}),
        ("query_dataframe", {"operation": "count", "query": "n * n * n * n / 7 % 3 > 1 and " * 5 + "n > 1"}),
        ("plot_dataframe", {"kind": "bar", "x": "n"}),
        ("plot_dataframe", {"kind": "histogram", "x": "n", "by": "n"}),
    ],
    ids=["nunique", "value_counts", "expression", "bars", "histogram"],
)
def test_typed_queries_and_charts_have_the_same_limits(
    namespace: dict[str, Any], tool: str, arguments: dict[str, Any]
) -> None:
    """A large table is no way around: its groups are counted in the same process, under the same limits."""
    rows = 3_000_000
    namespace["large"] = pd.DataFrame({"n": np.random.default_rng(0).permutation(rows)})
    limits = Limits(time_s=0.05, memory_bytes=MEMORY_BYTES)
    kernel = ToolServer("kernel", build_kernel_server(lambda: namespace, limits=limits))
    outcome = kernel.call_tool(tool, {"name": "large"} | arguments)
    assert outcome.is_error
    assert "longer than 0.05 s" in outcome.text
    kernel.close()


@pytest.mark.parametrize("kind", ["bar", "box", "histogram", "line", "scatter"])
def test_charts_of_many_rows_are_drawn_from_few(
    namespace: dict[str, Any], kernel: ToolServer, kind: str
) -> None:
    """However many rows and different texts there are, what is drawn is bounded, and the answer says so."""
    count = 500_000
    numbers = np.random.default_rng(0).normal(size=count)
    namespace["many"] = pd.DataFrame({"x": [f"name {n}" for n in range(count)], "y": numbers})
    server = ToolServer("kernel", build_kernel_server(lambda: namespace))
    arguments = {"name": "many", "kind": kind, "x": "y" if kind == "histogram" else "x"}
    outcome = server.call_tool("plot_dataframe", arguments | ({"y": "y"} if kind != "histogram" else {}))
    assert outcome.images, outcome.text
    assert {
        "bar": "40 of 500000 bars",
        "box": "40 boxes over 100000 rows; 400000 more are left out",
        "histogram": "500000 values",
        "line": "20000 points; 480000 more are left out",
        "scatter": "20000 points; 480000 more are left out",
    }[kind] in outcome.text
    server.close()


def test_a_table_that_is_too_large_is_not_handed_over() -> None:
    """What a query gets is bounded too: its copy must not push the kernel out of memory."""
    frame = pd.DataFrame({"small": [1] * 100_000, "large": ["x" * 100] * 100_000})
    call = QueryCall(Limits(input_bytes=1_000_000))
    assert frame_query(frame, "sum", column="small", call=call).structured["value"] == 100_000
    with pytest.raises(QueryError, match=r"hold 0.0108 GB, and at most 0.001 GB"):
        frame_query(frame, "nunique", column="large", call=QueryCall(Limits(input_bytes=1_000_000)))
    with pytest.raises(QueryError, match="Ask for fewer columns"):
        sql_query("SELECT * FROM t", {"t": frame}, call=QueryCall(Limits(input_bytes=1_000_000)))


def test_results_are_bounded(kernel: ToolServer) -> None:
    """Rows, columns and texts of a result are cut, whatever a statement makes."""
    long = kernel.call_tool("query_sql", {"sql": "SELECT repeat('x', 2000) AS a FROM range(100000)"})
    wide = kernel.call_tool("query_sql", {"sql": f"SELECT {', '.join(f'{n} AS c{n}' for n in range(900))}"})
    twice = kernel.call_tool("query_sql", {"sql": "SELECT 1 AS a, 2 AS a, 3 AS A"})
    huge = kernel.call_tool(
        "query_sql", {"sql": f"SELECT {', '.join(['repeat(chr(120), 999)'] * 700)} FROM range(99)"}
    )
    assert long.structured is not None
    assert long.structured["is_truncated"]
    assert len(long.structured["rows"]) == 50
    assert len(long.text) < 5_000
    assert wide.structured is not None
    assert wide.structured["is_truncated"]
    assert len(wide.structured["rows"][0]) == 60
    assert "of 900 columns" in wide.text
    assert twice.structured is not None
    assert twice.structured["rows"] == [{"a": 1, "a_1": 2, "A": 3}]
    assert huge.is_error
    assert "larger than" in huge.text


FORBIDDEN = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('$path/secret')",
    "SELECT * FROM read_blob('$path/secret')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('$path/*')",
    "SELECT * FROM '$path/secret'",
    "SELECT * FROM read_json('$path/secret')",
    "SELECT * FROM parquet_scan('$path/secret')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''$path/effect''')",
    "SELECT * FROM enable_logging('QueryLog', storage := 'file', storage_path := '$path/effect')",
    "SELECT * FROM enable_profiling('json', save_location := '$path/effect')",
    "SELECT getenv('OPENAI_API_KEY')",
    "SELECT * FROM pragma_database_list() WHERE write_blob('$path/effect', 'x')",
    "SELECT load_extension('$path/secret')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('COPY (SELECT 1) TO ''$path/effect'''))",
    "COPY (SELECT 1) TO '$path/effect'",
    "EXPORT DATABASE '$path/effect'",
    "ATTACH '$path/effect'",
    "SET enable_external_access = true",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "CREATE TABLE t AS SELECT 1",
    "INSERT INTO orders VALUES ('x', 1)",
    "DELETE FROM orders",
    "DROP VIEW orders",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "INSTALL httpfs",
    "LOAD '$path/secret'",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "USE memory",
    "SELECT 1; COPY (SELECT 1) TO '$path/effect'",
    "SELECT 1;;COPY (SELECT 1) TO '$path/effect'",
    "WITH t AS (DELETE FROM orders RETURNING *) SELECT * FROM t",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "+".join(["1"] * 9_000),
    "x" * 30_000,
    "",
]


@pytest.mark.parametrize("sql", FORBIDDEN, ids=lambda sql: sql[:40])
def test_a_statement_reaches_no_file_and_no_setting(
    kernel: ToolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """Nothing is read or written but the frames, and the answer says that it was refused."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    (tmp_path / "secret").write_text("hunter2")
    outcome = kernel.call_tool("query_sql", {"sql": sql.replace("$path", str(tmp_path))})
    assert outcome.is_error, outcome.text
    assert "hunter2" not in outcome.text
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("data", "cache")) == [
        "secret"
    ]
    assert kernel.call_tool("query_sql", {"sql": "SELECT count(*) AS n FROM orders"}).structured is not None


def test_the_child_has_no_secrets_and_no_terminal(
    kernel: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment holds no keys, its standard streams are pipes of its own, and it can write no file."""
    for child in children():
        child.kill()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MY_SETTING", "mine")
    kernel.call_tool("query_sql", {"sql": "SELECT 1"})
    [child] = children()
    environment = child.environ()
    assert "sk-very-secret" not in str(environment)
    assert not {"OPENAI_API_KEY", "MY_SETTING"} & set(environment)
    streams = [str(Path(f"/proc/{child.pid}/fd/{number}").readlink()) for number in range(3)]
    own = [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)]
    assert streams[0].startswith("pipe:")
    assert streams[1:] == ["/dev/null", "/dev/null"]
    assert not set(streams) - {"/dev/null"} & set(own)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert os.getsid(child.pid) != os.getsid(0)
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"


def test_one_warm_child_that_comes_again(kernel: ToolServer) -> None:
    """All calls share one child; when it was killed, the next call has a new one."""
    kernel.call_tool("query_sql", {"sql": "SELECT 1"})
    [first] = children()
    kernel.call_tool("query_dataframe", {"name": "orders", "operation": "mean", "column": "n"})
    assert children() == [first]
    os.kill(first.pid, signal.SIGKILL)
    assert not kernel.call_tool("query_sql", {"sql": "SELECT 1"}).is_error
    [second] = children()
    assert second != first


def test_a_call_during_the_kill_says_why(kernel: ToolServer) -> None:
    """A child that someone else kills in the middle of a statement is an error in words, not a hang."""
    kernel.call_tool("query_sql", {"sql": "SELECT 1"})
    [child] = children()
    killer = threading.Thread(target=lambda: (wait_until(lambda: bool(running()), "no start"), child.kill()))
    killer.start()
    with pytest.raises(QueryError, match="has ended"):
        sql_query(ENDLESS, {}, call=QueryCall(HASTY))
    killer.join()


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "research-kit-query-watch"]


async def test_calls_at_once_are_all_answered(kernel: ToolServer, hasty: ToolServer) -> None:
    """One after the other: the time of a call begins when its own statement does, not while it waits."""
    slow = [asyncio.create_task(hasty.acall_tool("query_sql", {"sql": ENDLESS})) for _ in range(2)]
    quick = [
        asyncio.create_task(kernel.acall_tool("query_sql", {"sql": f"SELECT {number} AS n"}))
        for number in range(5)
    ]
    assert all("longer than 1 s" in outcome.text for outcome in await asyncio.gather(*slow))
    answers = [(await task).structured for task in quick]
    assert [answer["rows"] for answer in answers if answer] == [[{"n": number}] for number in range(5)]


async def test_a_call_can_be_cancelled_while_it_waits(kernel: ToolServer) -> None:
    """Cancelling what runs and what waits frees the child for the next call at once."""
    first = asyncio.create_task(kernel.acall_tool("query_sql", {"sql": ENDLESS}))
    waiting = asyncio.create_task(kernel.acall_tool("query_sql", {"sql": ENDLESS}))
    deadline = time.monotonic() + 60
    while not running():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    waiting.cancel()
    first.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    assert not (await kernel.acall_tool("query_sql", {"sql": "SELECT 1"})).is_error
    assert running() == []


KERNEL = """
import sys, threading, pandas as pd
from research_kit.agent.queries import frame_query, sql_query, QueryCall, Limits
frame = pd.DataFrame({"n": [1, 2, 3]})
assert frame_query(frame, "count", query="n > 1").structured["value"] == 2
if sys.argv[1] == "busy":
    endless = "SELECT count(*) FROM range(100000000000) a, range(1000000) b"
    threading.Thread(target=sql_query, args=(endless, {}), daemon=True).start()
print("ready", flush=True)
if sys.argv[1] != "ends":
    sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["ends", "idle", "busy"])
def test_the_child_ends_with_its_kernel(state: str) -> None:
    """At exit, and after a kill that lets nothing be tidied up, also in the middle of a statement."""
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    assert kernel.stdin is not None
    found = []
    if state == "ends":
        kernel.stdin.close()
    else:
        assert kernel.stdout.readline() == "ready\n"
        found = children(kernel.pid)
        assert len(found) == 1
        kernel.kill()
    assert kernel.wait(60) == (0 if state == "ends" else -signal.SIGKILL)
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(kernel.pid) in (process.info["cmdline"] or [])
    ]
    wait_until(lambda: not any(map(is_there, [*found, *left])), f"left: {[*found, *left]}")
    kernel.stdin.close()
    kernel.stdout.close()


def is_there(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


FORKED = """
import os, pandas as pd, psutil
from research_kit.agent.queries import frame_query
frame = pd.DataFrame({"n": [1, 2, 3]})
count = lambda: frame_query(frame, "count", query="n > 1").structured["value"]
assert count() == 2
[child] = psutil.Process().children()
pid = os.fork()
if pid == 0:
    answer = count()
    [own] = psutil.Process().children()
    os._exit(answer if own != child else 9)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
assert count() == 2
"""


def test_a_forked_kernel_has_its_own_child() -> None:
    """Two processes never speak into the same pipe."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=120)


def odd_columns() -> pd.DataFrame:
    frame = pd.DataFrame({"n": [1, 2, 3]})
    frame["json"] = [{"a": 1}, ["x", {"b": None}], None]
    frame["mixed"] = [1, "a", 2.5]
    frame["unreadable"] = [Unreadable(), Unreadable(), None]
    frame["month"] = pd.period_range("2024-01", periods=3, freq="M")
    frame["interval"] = pd.interval_range(0, 3)
    frame["complex"] = [1j, 2j, 3j]
    frame["half"] = np.array([0.5, 1.5, np.nan], dtype="float16")
    frame["sparse"] = pd.arrays.SparseArray([0, 0, 1])
    frame["surrogate"] = pd.Series(["\ud800", "b", None], dtype=object)
    frame["huge"] = [10**50, 1, None]
    frame["category"] = pd.Categorical([3, 1, None])
    frame["zone"] = pd.date_range("2024-01-01", periods=3, tz="Europe/Oslo")
    frame["vector"] = [[1.0, 2.0], [3.0], None]
    return frame


@pytest.mark.parametrize("column", odd_columns().columns)
def test_columns_that_duckdb_does_not_know_are_text(column: str) -> None:
    """Each can be asked for, alone and with all others, and none fails a statement that does not name it."""
    frames = {"odd": odd_columns()}
    assert sql_query("SELECT sum(n) AS n FROM odd", frames).structured["rows"] == [{"n": 6}]
    answer = sql_query(f"SELECT typeof({column}) AS kind, count({column}) AS n FROM odd GROUP BY 1", frames)
    assert sum(row["n"] for row in answer.structured["rows"]) in (2, 3)
    text = {"json", "mixed", "unreadable", "month", "interval", "complex", "surrogate", "huge"}
    assert (answer.structured["rows"][0]["kind"] == "VARCHAR") is (column in text)
    everything = sql_query("SELECT * FROM odd", frames).structured
    assert everything["columns"] == list(odd_columns().columns)


def test_json_columns_can_be_looked_into() -> None:
    """Dictionaries are JSON for DuckDB's own functions."""
    answer = sql_query("SELECT json->>'$.a' AS a FROM odd WHERE n = 1", {"odd": odd_columns()})
    assert answer.structured["rows"] == [{"a": "1"}]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT n FROM t ORDER BY n DESC LIMIT 1", [{"n": 2}]),
        ("SELECT t FROM t LIMIT 1", [{"t": "{'n': 1, 'Name': 'a', 'other': 5}"}]),
        ("SELECT x FROM t AS x LIMIT 1", [{"x": "{'n': 1, 'Name': 'a', 'other': 5}"}]),
        ("FROM t LIMIT 1", [{"n": 1, "Name": "a", "other": 5}]),
        ("SELECT t.* EXCLUDE (other) FROM t LIMIT 1", [{"n": 1, "Name": "a"}]),
        ("SELECT COLUMNS('[nN].*') FROM t LIMIT 1", [{"n": 1, "Name": "a"}]),
        ("SELECT NAME FROM T WHERE N = 2", [{"Name": "b"}]),
        ('SELECT "name" FROM "t" WHERE "n" = 2', [{"Name": "b"}]),
        ("SELECT count(*) AS c FROM t NATURAL JOIN u", [{"c": 1}]),
        ("SELECT u.more FROM t JOIN u USING (n)", [{"more": 7}]),
        ("SELECT (SELECT max(other) FROM t WHERE t.n = u.n) AS m FROM u", [{"m": 6}]),
        ("SELECT sum(other) AS s FROM t GROUP BY ALL HAVING s > 1", [{"s": 11}]),
        ("SELECT count(*) AS c FROM t", [{"c": 2}]),
        ("PIVOT t ON Name USING sum(other)", [{"n": 1, "a": 5, "b": None}, {"n": 2, "a": None, "b": 6}]),
        ("SELECT * FROM query_table('t') LIMIT 1", [{"n": 1, "Name": "a", "other": 5}]),
        ("WITH t AS (SELECT 1 AS z) SELECT * FROM t", [{"z": 1}]),
        ("SELECT c.n FROM (SELECT * FROM t) c WHERE c.other = 6", [{"n": 2}]),
        ("SELECT n FROM t UNION SELECT n FROM u ORDER BY n", [{"n": 1}, {"n": 2}]),
        ("SELECT n, lag(other) OVER (ORDER BY n) AS l FROM t QUALIFY l IS NOT NULL", [{"n": 2, "l": 5}]),
        ('SELECT * FROM "my frame"', [{"z": 1}]),
    ],
)
def test_a_statement_gets_the_columns_that_it_names(sql: str, rows: list[dict[str, Any]]) -> None:
    """Stars, whole rows, joins and names in any case are all understood."""
    frames = {
        "t": pd.DataFrame({"n": [1, 2], "Name": ["a", "b"], "other": [5, 6]}),
        "u": pd.DataFrame({"n": [2], "more": [7]}),
        "my frame": pd.DataFrame({"z": [1]}),
    }
    if sql.startswith("PIVOT"):
        with pytest.raises(QueryError, match="only a single SELECT"):
            sql_query(sql, frames)
        return
    assert sql_query(sql, frames).structured["rows"] == rows

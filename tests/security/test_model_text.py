"""What a model writes into the kernel's tools is never run by anything."""

from __future__ import annotations

import ast
import base64
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest

import research_kit
from research_kit.agent import ToolOutcome, ToolServer, build_kernel_server

TOUCHED: list[str] = []


class Touchy:
    """Each way of looking at it leaves a trace."""

    def __getattribute__(self, name: str) -> Any:
        TOUCHED.append(f"attribute {name}")
        return object.__getattribute__(self, name)

    @property
    def shape(self) -> tuple[int, ...]:
        TOUCHED.append("shape")
        return (1, 2)

    @property
    def __class__(self) -> type:
        TOUCHED.append("class")
        return list

    def __repr__(self) -> str:
        TOUCHED.append("repr")
        return "touched"

    def __str__(self) -> str:
        TOUCHED.append("str")
        return "touched"

    def __len__(self) -> int:
        TOUCHED.append("len")
        return 1

    def __hash__(self) -> int:
        TOUCHED.append("hash")
        return 1

    def __iter__(self) -> Iterator[int]:
        TOUCHED.append("iter")
        return iter([1])

    def __format__(self, spec: str) -> str:
        TOUCHED.append("format")
        return "touched"


class TouchyMeta(type):
    """A class whose own name and order leave a trace."""

    @property
    def __name__(cls) -> str:
        TOUCHED.append("class name")
        return "Named"

    @property
    def __mro__(cls) -> tuple[type, ...]:
        TOUCHED.append("class order")
        return (pd.DataFrame, object)

    def __instancecheck__(cls, instance: object) -> bool:
        TOUCHED.append("instance check")
        return True


class OfTouchyClass(metaclass=TouchyMeta):
    pass


class TouchyText(str):
    def __getitem__(self, key: Any) -> str:
        TOUCHED.append("text item")
        return "touched"

    def __repr__(self) -> str:
        TOUCHED.append("text repr")
        return "touched"


class TouchyInteger(int):
    def __repr__(self) -> str:
        TOUCHED.append("integer repr")
        return "touched"


class TouchyFrame(pd.DataFrame):
    """A frame whose own properties leave a trace."""

    @property
    def shape(self) -> tuple[int, int]:
        TOUCHED.append("frame shape")
        return (0, 0)

    @property
    def iloc(self) -> Any:
        TOUCHED.append("frame iloc")
        return super().iloc

    def __len__(self) -> int:
        TOUCHED.append("frame len")
        return 0

    def __getitem__(self, key: Any) -> Any:
        TOUCHED.append("frame item")
        return super().__getitem__(key)

    def eval(self, *args: Any, **kwargs: Any) -> Any:
        TOUCHED.append("frame eval")
        return super().eval(*args, **kwargs)

    def copy(self, deep: Any = True) -> Any:
        TOUCHED.append("frame copy")
        return super().copy(deep)


class DeepFrame(pd.DataFrame):
    """A frame that cannot be read without running its own code."""

    def __getattribute__(self, name: str) -> Any:
        TOUCHED.append(f"frame attribute {name}")
        return object.__getattribute__(self, name)


@pytest.fixture
def animals() -> pd.DataFrame:
    return pd.DataFrame({"species": ["a", "b", "`"], "n": [1, 2, 3], "body mass": [1.5, 2.5, 3.5]})


@pytest.fixture
def namespace(animals: pd.DataFrame) -> dict[str, Any]:
    return {"animals": animals, "secret": "hunter2"}


@pytest.fixture
def kernel(namespace: dict[str, Any]) -> Iterator[ToolServer]:
    server = ToolServer("kernel", build_kernel_server(lambda: namespace))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def untouched() -> None:
    TOUCHED.clear()


SYSTEM = 'n.pipe.__globals__["sys"].modules["os"].system("touch $path")'
CODE = [
    # A quote in a name, a name in a string, and all the ways in which two readers can differ about them.
    f'(species == "`") | (n == {SYSTEM}) | (species == "`")',
    '(species == "`") | (n.to_csv("$path") == 1) | (species == "`")',
    '(species == "`") | (n.to_pickle("$path") == 1) | (species == "`")',
    "(species == '`') | (n.to_csv('$path') == 1) | (species == '`')",
    'species == "`" or n.to_csv("$path") or species == "`"',
    'species in ["`", n.to_csv("$path"), "`"]',
    '(species == "\\"`") | (n.to_csv("$path") == 1) | (species == "`")',
    "(species == '\\'`') | (n.to_csv(\"$path\") == 1) | (species == '`')",
    '(species == r"`") | (n.to_csv("$path") == 1) | (species == r"`")',
    '(species == """`""") | (n.to_csv("$path") == 1) | (species == """`""")',
    '(species == b"`") | (n.to_csv("$path") == 1) | (species == b"`")',
    '(species == u"`") | (n.to_csv("$path") == 1) | (species == u"`")',
    'n > 1 # `\n or n.to_csv("$path") # `',
    '`n" == n.to_csv("$path") or "`',
    '`n` == n.to_csv("$path")',
    'n.to_csv("$path")',
    "n.to_csv('$path') == None",
    "`n.to_csv('$path')`",
    '`n.to_csv("$path")` > 1',
    '`@__import__("os").system("touch $path")` > 1',
    SYSTEM,
    f"n == {SYSTEM}",
    f"n > 1 and {SYSTEM} == 0",
    "__import__('os').system('touch $path')",
    "@__import__('os').system('touch $path')",
    "@secret == 'hunter2'",
    "open('$path', 'w') == 1",
    "eval('open(\"$path\", \"w\")')",
    "exec('open(\"$path\", \"w\")') == 1",
    "@pd.eval('1')",
    "(lambda: open('$path', 'w'))()",
    "[x for x in [open('$path', 'w')]]",
    "{x: 1 for x in n}",
    "{n.to_csv('$path')}",
    "(x := n.to_csv('$path'))",
    "n if n.to_csv('$path') else n",
    "f\"{n.to_csv('$path')}\" == species",
    "species == f'{n}'",
    "species == '{0.__class__}'.format(n)",
    "species == '%s' % n",
    "species == 'x' * 10**9",
    "n > 9**9**9",
    "n << 100000000000 > 1",
    "n // 1 > 0",
    "n @ n > 1",
    "n.__class__ == 1",
    "n.values",
    "n[0] == 1",
    "n[:] == 1",
    "n is 1",
    "n is not species",
    "*n",
    "n, species",
    "await n",
    "yield n",
    "n = 1",
    "n == 1; n.to_csv('$path')",
    "n == 1\nn.to_csv('$path')",
    "import os",
    "n.\uff54\uff4f_csv('$path')",
    "n == 1 or \\\n n.to_csv('$path')",
    "species == ...",
    "n == 1j",
    "sin(n) > 0",
    "species.str.match('(a+)+$$')",
    "index.map(print) == 1",
    "n == n.apply(print)",
    "n in n.to_csv('$path')",
    "1 in [n.to_csv('$path')]",
    "not n.to_csv('$path')",
    "-n.to_csv('$path') > 1",
    "n + n.to_csv('$path') > 1",
    "`species` == `",
    "n %(" * 45 + "n" + ")" * 45 + " > 1",
    "n > (n <" * 30 + "n" + "< n)" * 30,
    "1 < (" * 30 + "n" + " < 2) < 3" * 30,
    "(" * 20 + "n" + " in [1, 2, 3])" * 20,
    "\0n > 1",
    "n > 1 \ud800",
]  # fmt: skip
ARGUMENTS = [
    pytest.param("query_dataframe", {"operation": "count"}, id="query"),
    pytest.param("plot_dataframe", {"kind": "bar", "x": "species"}, id="plot"),
]


@pytest.mark.parametrize(("tool", "arguments"), ARGUMENTS)
@pytest.mark.parametrize("code", CODE, ids=lambda code: ascii(code[:60]))
def test_expression_with_code_is_refused(
    kernel: ToolServer,
    animals: pd.DataFrame,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    tool: str,
    arguments: dict[str, Any],
    code: str,
) -> None:
    """Whatever is tried to get a call past the check, nothing is run, and the answer says so."""
    effect = tmp_path / "effect"
    before, modules = animals.copy(deep=True), set(sys.modules)
    query = string.Template(code).substitute(path=effect)
    outcome = kernel.call_tool(tool, {"name": "animals", "query": query} | arguments)
    assert outcome.is_error, outcome.text
    assert outcome.text.startswith("Cannot ")
    assert not effect.exists()
    assert capfd.readouterr() == ("", "")
    assert "antigravity" not in set(sys.modules) - modules
    pd.testing.assert_frame_equal(animals, before)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ('species == "`"', 1),
        ("species == '`'", 1),
        ('species in ["`", "a"]', 2),
        ('species == "n.to_csv(1)"', 0),
        ("`body mass` > 2", 2),
        ('`body mass` > 2 and species != "`"', 1),
        ("species == '\\x60'", 1),
        ("species == 'a' # and nothing else", 1),
        ("piece_0 == 7", 1),
        ('piece_0 == 7 and species == "a"', 1),
        ("`n.to_csv('x')` == 5", 3),
        ('`c"; DROP TABLE frame; --` == 6', 3),
    ],
)
def test_strings_and_quoted_names_are_only_that(
    kernel: ToolServer, animals: pd.DataFrame, query: str, count: int
) -> None:
    """A backtick in a string is text, code in backticks is a name, also where a column is called so."""
    animals["piece_0"] = [7, 8, 9]
    animals["n.to_csv('x')"] = 5
    animals['c"; DROP TABLE frame; --'] = 6
    outcome = kernel.call_tool("query_dataframe", {"name": "animals", "operation": "count", "query": query})
    assert outcome.structured is not None, outcome.text
    assert outcome.structured["value"] == count


HOSTILE_TEXTS = [
    "'); COPY frame TO '$path'; --",
    '"; COPY (SELECT 1) TO "$path"; --',
    "$$1",
    "{secret}",
    "%(secret)s",
    "a' OR 1=1 --",
    "`); import os; os.system('touch $path')",
    "__import__('os').system('touch $path')",
    "(a+)+" + "a" * 40 + "!",
    "\0",
    "\ud800",
    "x" * 1_000_000,
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: ascii(text[:20]))
def test_hostile_arguments_stay_text(kernel: ToolServer, tmp_path: Path, text: str) -> None:
    """Names, values and titles are compared or quoted, never part of a statement; and answers stay short."""
    effect = tmp_path / "effect"
    text = string.Template(text).substitute(path=effect, secret="$secret")
    where = [{"column": "species", "operator": operator, "value": text} for operator in ("==", "!=", "<")]
    calls: list[tuple[str, dict[str, Any]]] = [
        *(("query_dataframe", {"name": "animals", "operation": "count", "where": [one]}) for one in where),
        (
            "query_dataframe",
            {"name": "animals", "operation": "count", "where": [{"column": text, "value": 1}]},
        ),
        ("query_dataframe", {"name": "animals", "operation": "min", "column": text}),
        ("query_dataframe", {"name": "animals", "operation": "mean", "column": "n", "group_by": text}),
        ("query_dataframe", {"name": text, "operation": "count"}),
        ("describe_variable", {"name": text}),
        ("query_sql", {"sql": text}),
        ("plot_dataframe", {"name": "animals", "kind": "bar", "x": text}),
        ("plot_dataframe", {"name": "animals", "kind": "bar", "x": "species", "title": text[:120]}),
    ]
    outcomes = [kernel.call_tool(tool, arguments) for tool, arguments in calls]
    assert not effect.exists()
    assert all("hunter2" not in outcome.text for outcome in outcomes)
    assert all(len(outcome.text) < 3_000 for outcome in outcomes)
    assert outcomes[0].is_error
    assert outcomes[1].structured is not None
    assert outcomes[1].structured["value"] == 3
    assert all(outcome.is_error for outcome in outcomes[3:-1])
    assert outcomes[-1].images or "\ud800" in text


def test_many_conditions_are_refused(kernel: ToolServer) -> None:
    """A list of conditions without end is not worked through."""
    where = [{"column": "n", "operator": ">", "value": number} for number in range(5_000)]
    arguments = {"name": "animals", "operation": "count", "where": where}
    outcome = kernel.call_tool("query_dataframe", arguments)
    assert outcome.is_error
    assert "at most 20" in outcome.text


@pytest.mark.parametrize(
    "text", ["now", "today", "1e99", "2024-01-31T00:00:00" + "0" * 10_000, "NaT", "31/01"]
)
def test_points_in_time_are_not_guessed(kernel: ToolServer, namespace: dict[str, Any], text: str) -> None:
    """A text that is no date in one fixed form is refused, in conditions and expressions."""
    namespace["days"] = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=3)})
    for chosen in ({"where": [{"column": "day", "value": text}]}, {"query": f"day > '{text[:500]}'"}):
        outcome = kernel.call_tool("query_dataframe", {"name": "days", "operation": "count"} | chosen)
        assert outcome.is_error
        assert "Write it as '2024-01-31'" in outcome.text


TITLES = [
    "$$\\frac{",
    "\\input{$path}",
    "\\immediate\\write18{touch $path}",
    "$$\\$$\\$$ %s {0}",
    "\\$$x^2$$",
    "_^~#&{}",
]


@pytest.mark.parametrize("uses_latex", [False, True])
@pytest.mark.parametrize("title", TITLES)
def test_titles_are_drawn_as_they_are(
    kernel: ToolServer, namespace: dict[str, Any], tmp_path: Path, title: str, uses_latex: bool
) -> None:
    """Neither formulas nor LaTeX are read in a title, a column's name or a value."""
    from research_kit.agent.frame_plot import _literal

    title = string.Template(title).substitute(path=tmp_path / "effect")
    if uses_latex:
        with matplotlib.rc_context({"text.usetex": True}):
            written = _literal(title)
        # Each backslash that is left belongs to the characters that are written.
        rest = written.replace(r"\textbackslash{}", "").replace(r"\textasciicircum{}", "")
        rest = rest.replace(r"\textasciitilde{}", "")
        assert all(rest[place + 1] in "#$%&_{}" for place, one in enumerate(rest) if one == "\\")
        return
    namespace["odd"] = pd.DataFrame({title: [title, "b"], "n": [1, 2]})
    for kind in ("bar", "scatter", "line", "box"):
        arguments = {"name": "odd", "kind": kind, "x": title, "y": "n", "by": title, "title": title}
        outcome = kernel.call_tool("plot_dataframe", arguments)
        assert outcome.images, outcome.text
        assert base64.b64decode(outcome.images[0].base64_text).startswith(b"\x89PNG")
    assert not (tmp_path / "effect").exists()


@pytest.mark.parametrize(
    "value",
    [
        Touchy(),
        OfTouchyClass(),
        TouchyText("text"),
        TouchyInteger(5),
        DeepFrame({"x": [1]}),
        [Touchy()],
        [[[Touchy()]]],
        10**100_000,
        [10**100_000],
        (lambda loop: loop.append(loop) or loop)([]),  # type: ignore[func-returns-value]
        {("key",) * 100_000: 1},
        ["x" * 10_000_000] * 10,
        pd.Series([Touchy()] * 3),
    ],
    ids=lambda value: type(value).__qualname__,
)
def test_looking_at_a_variable_runs_nothing_of_it(
    kernel: ToolServer, namespace: dict[str, Any], value: object
) -> None:
    """No property, length, text, comparison or class of an object is asked, and the answer is short."""
    namespace["odd"] = value
    TOUCHED.clear()
    described = kernel.call_tool("describe_variable", {"name": "odd"})
    listed = kernel.call_tool("list_variables")
    other = kernel.call_tool("query_dataframe", {"name": "odd", "operation": "count"})
    assert TOUCHED == []
    assert not described.is_error
    assert not listed.is_error
    assert other.is_error
    assert len(described.text) + len(listed.text) < 2_000


def test_a_frame_of_another_class_is_read_as_a_frame(kernel: ToolServer, namespace: dict[str, Any]) -> None:
    """The columns of a subclass are used, its own methods and properties are not."""
    namespace["odd"] = TouchyFrame({"x": [1, 2, 3], "y": ["a", "b", "b"]})
    TOUCHED.clear()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("list_variables", {}),
        ("describe_variable", {"name": "odd"}),
        ("query_dataframe", {"name": "odd", "operation": "mean", "column": "x", "query": "y == 'b'"}),
        ("query_dataframe", {"name": "odd", "operation": "rows"}),
        ("query_sql", {"sql": "SELECT y, sum(x) AS total FROM odd GROUP BY y ORDER BY y"}),
        ("plot_dataframe", {"name": "odd", "kind": "bar", "x": "y"}),
    ]
    outcomes = [kernel.call_tool(tool, arguments) for tool, arguments in calls]
    assert TOUCHED == []
    assert "3 rows x 2 columns" in outcomes[0].text
    assert [outcome.is_error for outcome in outcomes] == [False] * len(calls)
    assert value_of(outcomes[2]) == 2.5


def value_of(outcome: ToolOutcome) -> Any:
    assert outcome.structured is not None, outcome.text
    return outcome.structured["value"]


def test_the_package_evaluates_no_text() -> None:
    """No module hands text to Python's or pandas' evaluators."""
    package = Path(research_kit.__file__).parent
    calls = [
        (path.relative_to(package), node.lineno)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "eval")
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ("eval", "query"))
        )
    ]
    assert calls == []

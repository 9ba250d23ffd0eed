"""Each promise of SECURITY.md has a test, and each test file here keeps a promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_TEXT = (_HERE.parents[1] / "SECURITY.md").read_text(encoding="utf-8")
_ROWS = [line for line in _TEXT.splitlines() if line.startswith("| ") and "test_" in line]
_NAMED = [name for row in _ROWS for name in re.findall(r"`(test_\w+\.py(?:::\w+)?)`", row)]


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.parametrize("name", _NAMED)
def test_named_test_is_there(name: str) -> None:
    """A promise names a test that exists."""
    file_name, _, function = name.partition("::")
    known = _tests_of(_HERE / file_name)
    assert function in known if function else known


def test_every_promise_names_a_test() -> None:
    """No row of the table is without one."""
    table = _TEXT[_TEXT.index("| promise | test |") :].splitlines()[2:]
    rows = [line for line in table if line.startswith("|")]
    assert rows
    assert [row for row in rows if not re.search(r"`(?:test_\w+\.py|tests/)", row)] == []


def test_every_file_of_tests_keeps_a_promise() -> None:
    """What is tested here is promised there."""
    files = {path.name for path in _HERE.glob("test_*.py")} - {Path(__file__).name}
    assert files - {name.partition("::")[0] for name in _NAMED} == set()

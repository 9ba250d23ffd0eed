"""The layers of the package: imports point down only, and importing the package costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "research_kit"

# From top to bottom; modules on one row do not import each other.
ROWS = [
    {"ipython", "cli"},
    {"views"},
    {"chat", "regression"},
    {"agent", "transfer"},
    {"instrumentation", "traces"},
    {"session"},
    {"store"},
    {"counting", "wire"},
    {"trust"},
    {"_notices"},
    {"masking"},
    {"config", "_optional", "_slow_formats", "_words"},
    {"private", "sources"},
    {"errors", "plain_stream"},
    {"_addresses", "plain_text"},
]
HEAVY = ("pandas", "dspy", "mcp", "langfuse", "IPython", "anywidget", "papermill", "uvicorn")
# Only these talk to IPython and to widgets.
FRONT_END = {"ipython.py", "chat/panel.py"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def row_of(room: str) -> int:
    return next(number for number, row in enumerate(ROWS) if room in row)


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the absolute names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports only from the rows below its own."""
    room = room_of(path)
    if room == "__init__":
        return
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "research_kit" or len(parts) < 2 or not any(parts[1] in row for row in ROWS):
            continue
        other = parts[1]
        assert other == room or row_of(other) > row_of(room), f"{path.name} of {room} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_front_end_imports_the_front_end(path: Path) -> None:
    """IPython and widgets are imported in two places only."""
    if str(path.relative_to(PACKAGE)) in FRONT_END:
        return
    names = {name.split(".")[0] for name in imported_modules(path)}
    assert not names & {"IPython", "ipywidgets", "anywidget"}


def test_every_room_has_a_row() -> None:
    """A new module has a place in the layers."""
    rooms = {room_of(path) for path in sources()} - {"__init__"}
    assert rooms == set().union(*ROWS)


def test_import_loads_nothing_heavy() -> None:
    """Importing the package, and binding a session, loads none of the heavy libraries."""
    code = f"import sys, research_kit; research_kit.bind(); print([n for n in {HEAVY} if n in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_every_public_name_resolves() -> None:
    """Each name that the package announces can be had."""
    import research_kit

    for name in research_kit.__all__:
        assert getattr(research_kit, name) is not None
    assert sorted(research_kit.__all__) == research_kit.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist is refused as Python refuses it."""
    import research_kit

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = research_kit.nothing


def test_chat_is_callable_whatever_was_imported_first() -> None:
    """`research_kit.chat` opens a panel also after the package of that name was imported."""
    code = "import research_kit, research_kit.chat.engine; print(callable(research_kit.chat))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "True"

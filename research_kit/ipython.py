"""The IPython extension: ``%load_ext research_kit``.

Owns the hooks of one shell; what they call works without IPython. Invariant: loading binds a session and
registers hooks, and nothing else: no network, no server, no output. Unloading restores everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from tokenize import DEDENT, INDENT, TokenInfo
from types import ModuleType

from IPython.core.inputtransformer2 import EscapedCommand
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell
from IPython.core.magic import no_var_expand
from IPython.display import display
from wrapt import register_post_import_hook

from research_kit import session
from research_kit._slow_formats import defer_slow_formats
from research_kit.instrumentation import instrument_dspy, uninstrument_dspy
from research_kit.session.cells import Cell, running_cells
from research_kit.session.facts import note_notebook

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

# Importing one of these is the sign that something observed will happen in this kernel.
_OBSERVED_MODULES = ("dspy", "langfuse", "mcp")
_TRACE_MAGIC = "%%trace"
_COST_MAGIC = "%%cost"
_CHAT_MAGIC = "chat"
_MAX_NAME_LENGTH = 200
# Where VS Code puts the notebook's path.
_PATH_VARIABLE = "__vsc_ipynb_file__"

_shell: InteractiveShell | None = None
_is_watching_imports = False
# The cells that run under %%cost, and what they have cost so far.
_measured: dict[Cell, ExitStack] = {}


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Bind this kernel to a session and observe what its cells call; loading twice equals loading once."""
    global _shell
    defer_slow_formats()
    note_notebook(ipython.user_ns.get(_PATH_VARIABLE))
    session.bind()
    if _shell is ipython:
        return
    _shell = ipython
    ipython.events.register("pre_run_cell", _before_cell)
    ipython.events.register("post_run_cell", _after_cell)
    ipython.input_transformers_cleanup.append(_without_own_magics)
    ipython.input_transformer_manager.token_transformers.append(_Question)
    register: Callable[..., object] = ipython.register_magic_function
    register(_chat_magic, "line_cell", _CHAT_MAGIC)
    register(_cost_magic, "line", _COST_MAGIC.strip("%"))
    _watch_imports()


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Remove the hooks and unbind the session; what has ended is still delivered."""
    global _shell
    if _shell is not ipython:
        return
    _shell = None
    ipython.events.unregister("pre_run_cell", _before_cell)
    ipython.events.unregister("post_run_cell", _after_cell)
    ipython.input_transformers_cleanup.remove(_without_own_magics)
    ipython.input_transformer_manager.token_transformers.remove(_Question)
    for magics in ipython.magics_manager.magics.values():
        magics.pop(_CHAT_MAGIC, None)
        magics.pop(_COST_MAGIC.strip("%"), None)
    uninstrument_dspy()
    _leave(running_cells.cut_off())
    session.unbind()


class _Question(EscapedCommand):
    """``%chat`` with a text that ends in a question mark, which IPython would take for a request for help."""

    priority = 1  # before IPython's help, which begins where the line does

    def __init__(self, start: tuple[int, int], escape_col: int) -> None:
        super().__init__(start)  # type: ignore[no-untyped-call] # untyped in IPython
        self._escape_col = escape_col

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> _Question | None:
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in (INDENT, DEDENT)]
            words = [token.string for token in tokens]
            begin = words.index("=") + 1 if "=" in words[1:2] else 0
            # The last is the end of the line; %chat? alone does ask for help.
            is_chat = words[begin : begin + 2] == ["%", _CHAT_MAGIC]
            if is_chat and words[-2] == "?" and words[begin + 2] != "?":
                return cls(tokens[0].start, tokens[begin].start[1])
        return None

    def transform(self, lines: list[str]) -> list[str]:
        self.start_col = self._escape_col
        transformed: list[str] = super().transform(lines)  # type: ignore[no-untyped-call]
        return transformed


# IPython would run what stands in braces, and take dollars for variables.
@no_var_expand
def _chat_magic(line: str, cell: str | None = None) -> object:
    """Ask the assistant.

    ``%chat question`` asks a line, ``%%chat [--lm NAME] [--new] [--raw] [--as NAME]`` the cell below it.
    ``{variable}`` is filled in, unless with ``--raw``; ``--as`` names the variable that takes the answer.
    """
    from research_kit.chat.cell_chat import run_chat_magic

    assert _shell is not None
    return run_chat_magic(line, cell, _shell.user_ns)


def _cost_magic(line: str) -> object:
    """Show what this session, or the one that is named, has cost; ``%%cost`` shows what its cell cost."""
    from research_kit.views import session_cost

    return session_cost(line.strip() or None)


def _watch_imports() -> None:
    global _is_watching_imports
    if _is_watching_imports:  # wrapt keeps hooks for good, so they are registered once and look at _shell
        return
    _is_watching_imports = True
    for name in _OBSERVED_MODULES:
        register_post_import_hook(_after_import, name)


def _after_import(_: ModuleType) -> None:
    _observe()


def _before_cell(info: ExecutionInfo) -> None:
    with session.guarded("before a cell"):
        cell = _cell_of(info)
        _leave(running_cells.begin(cell))
        if _shell is not None:
            note_notebook(_shell.user_ns.get(_PATH_VARIABLE))
        session.kernel_session().refresh_enabled()
        if cell.is_named or any(name in sys.modules for name in _OBSERVED_MODULES):
            _observe()
        if (
            _COST_MAGIC in _own_magics(cell.source.lstrip().splitlines())
            and running_cells.of_this_thread() is cell
        ):
            _measure(cell)


def _after_cell(result: ExecutionResult | None) -> None:
    with session.guarded("after a cell"):
        _leave(running_cells.end(result))


def _measure(cell: Cell) -> None:
    from research_kit.views import measure_cost

    _observe()
    with ExitStack() as stack:
        # Last, when the report is filled.
        stack.callback(lambda: display(report))  # type: ignore[no-untyped-call]
        report = stack.enter_context(measure_cost("This cell"))
        _measured[cell] = stack.pop_all()


def _leave(cell: Cell | None) -> None:
    if cell is not None:
        session.kernel_session().leave_cell(cell)
        _measured.pop(cell, ExitStack()).close()


def _observe() -> None:
    if _shell is None:
        return
    with session.guarded("import hook"):
        if session.activate():
            instrument_dspy()


def _cell_of(info: ExecutionInfo) -> Cell:
    source = info.raw_cell or ""
    name = _trace_name(source)
    count = None if _shell is None else _shell.execution_count - bool(info.store_history)
    return Cell(
        source=source,
        name=name or f"cell [{'' if count is None else count}]",
        is_named=name is not None,
        cell_id=info.cell_id,
        execution_count=count,
        request=_request(),
    )


def _request() -> object:
    """Return what identifies the front end's request; None in a terminal."""
    get_parent = getattr(_shell, "get_parent", None)
    return None if get_parent is None else get_parent().get("header", {}).get("msg_id")


def _trace_name(source: str) -> str | None:
    """Return the name that ``%%trace name`` at the beginning gives; empty without a name."""
    name = _own_magics(source.lstrip().splitlines()).get(_TRACE_MAGIC)
    return None if name is None else name[:_MAX_NAME_LENGTH]


def _own_magics(lines: list[str]) -> dict[str, str]:
    """Return the magics of ours that a cell begins with, in any order, and what stands behind them."""
    found = {}
    for line in lines:
        magic, _, rest = line.partition(" ")
        if magic.rstrip() not in (_TRACE_MAGIC, _COST_MAGIC) or magic.rstrip() in found:
            break
        found[magic.rstrip()] = rest.strip()
    return found


def _without_own_magics(lines: list[str]) -> list[str]:
    """Take ``%%trace name`` and ``%%cost`` off a cell, which then runs as any other, also with ``await``.

    Empty lines stay in their place, so that tracebacks name the right lines, unless another cell magic
    follows, which must come first.
    """
    count = len(_own_magics(lines))
    body = lines[count:]
    return body if not count or (body and body[0].startswith("%%")) else ["\n"] * count + body

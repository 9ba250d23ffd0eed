"""Which cell runs, as IPython's hooks tell it, in every order in which they do."""

from __future__ import annotations

import threading

import pytest
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult

from research_kit.session.cells import Cell, RunningCells


def cell(request: object = "first") -> Cell:
    return Cell(source="1", name="cell [1]", request=request)


def result_of(source: str = "1", error: BaseException | None = None) -> ExecutionResult:
    result = ExecutionResult(ExecutionInfo(source, True, False, True, None, None))
    result.error_in_exec = error
    return result


def test_cell_inside_a_cell_is_not_told() -> None:
    """Only the outermost of cells inside one another begins and ends; an empty one inside changes nothing."""
    running, outer = RunningCells(), cell()
    running.begin(outer)
    running.begin(cell())
    assert running.end(result_of(" ")) is None
    assert running.end(result_of()) is None
    assert running.of_this_thread() is outer
    assert running.end(result_of()) is outer
    assert running.of_this_thread() is None


def test_lost_end_does_not_swallow_the_next_cell() -> None:
    """A cell whose end was never told is cut off when the next request begins."""
    running, lost, following = RunningCells(), cell(), cell("second")
    running.begin(lost)
    assert running.begin(following) is lost
    assert lost.ending is not None
    assert lost.ending.outcome == "interrupted"
    assert running.end(result_of()) is following


def test_end_without_a_beginning_is_ignored() -> None:
    """The cell that loads the extension ends without having begun."""
    assert RunningCells().end(result_of()) is None


@pytest.mark.parametrize(
    ("result", "ending"),
    [
        (result_of(), ("success", "")),
        (result_of(error=ValueError("no")), ("error", "ValueError: no")),
        (result_of(error=KeyboardInterrupt()), ("interrupted", "interrupted")),
        (None, ("interrupted", "interrupted")),
    ],
    ids=["success", "error", "interrupt", "no result"],
)
def test_ending(result: ExecutionResult | None, ending: tuple[str, str]) -> None:
    """A cell ended well, failed, or was interrupted; IPython gives an interrupted async cell no result."""
    running = RunningCells()
    running.begin(cell())
    ended = running.end(result)
    assert ended is not None
    assert ended.ending == ending


def test_cells_of_two_threads_are_kept_apart() -> None:
    """While a subshell runs a cell beside another, no cell is the only one; afterwards one is."""
    running, mine = RunningCells(), cell()
    running.begin(mine)
    seen: list[Cell | None] = []

    def in_subshell() -> None:
        running.begin(cell("second"))
        seen.append(running.only_one())
        running.end(result_of())

    thread = threading.Thread(target=in_subshell)
    thread.start()
    thread.join()
    assert seen == [None]
    assert running.only_one() is mine

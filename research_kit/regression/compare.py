"""Expected outputs against actual outputs, judged by nbval.

Owns the pairing of cells and the description of what differs; nbval's own comparison decides whether two
outputs are the same, and where it says no, whether they mean the same: numbers within a tolerance, HTML and
JSON with the same content, sets in another order. Pictures are compared by how they look. Does not execute
and does not know where the expectation comes from. Invariant: of the differences that nbval sees none is lost
but those without meaning.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, coalesce_streams, nocolors, transform_streams_for_comparison

from research_kit.regression.cells import INJECTED_TAG, read_options, read_tags
from research_kit.regression.images import IMAGE_KEYS, difference_picture, image_distance
from research_kit.regression.large import is_shortened, shorten
from research_kit.regression.sanitize import DEFAULT_SANITIZERS, Sanitizer, sanitize_value
from research_kit.regression.structure import is_same_html, is_same_json, sort_sets, table_differences
from research_kit.regression.tolerance import is_within

__all__ = ["SKIPPED_KEYS", "Difference", "compare_notebooks"]

# nbval's list. Images differ between versions of plotting libraries, and widget views carry random ids.
SKIPPED_KEYS = (
    "metadata",
    "traceback",
    "prompt_number",
    "output_type",
    "name",
    "execution_count",
    "application/vnd.jupyter.widget-view+json",
    "image/png",
    "image/jpeg",
)
_DIFF_LINE_COUNT = 60
_DIFF_CONTEXT_COUNT = 3
# difflib needs minutes for texts of ten thousand different lines; the first ones show what happened.
_COMPARED_LINE_COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One kind of output of one cell that is not what was expected.

    Attributes:
        cell_index: Position of the cell in the notebook, from 0, markdown cells counted; for a cell that only
            the baseline has, its position there.
        execution_count: The number in brackets; None when the cell did not get one.
        source: The source of the cell.
        output_key: ``stdout``, ``stderr``, ``ename``, ``evalue`` or a MIME type.
        expected: The accepted text, sanitized; None when there was no such output.
        actual: The text of this run, sanitized; None when there was no such output.
        diff: A unified diff, expected as ``-`` and actual as ``+``.
        image: A picture of the difference of two images, as a PNG in base64; empty without one.
    """

    cell_index: int
    execution_count: int | None
    source: str
    output_key: str
    expected: str | None
    actual: str | None
    diff: str
    image: str = ""


def compare_notebooks(
    expected: NotebookNode,
    actual: NotebookNode,
    *,
    sanitizers: Sequence[Sanitizer] = DEFAULT_SANITIZERS,
    tolerance: float = 0.0,
    image_tolerance: float | None = None,
) -> tuple[Difference, ...]:
    """Compare the outputs of all code cells, in the order of the cells.

    Args:
        expected: A notebook with the accepted outputs.
        actual: The executed notebook; the cell that papermill injects does not take part.
        sanitizers: What is replaced on both sides first.
        tolerance: The largest relative difference of two numbers, where a cell's own tag says nothing.
        image_tolerance: The perceptual distance at which two images differ; None compares none.

    Raises:
        ConfigError: When a cell's tag has no usable tolerance.
    """
    judge = _Judge(sanitizers, tolerance, image_tolerance)
    differences: list[Difference] = []
    for pair in _pair_cells(_code_cells(expected), _code_cells(actual)):
        if pair.is_compared:
            differences.extend(_compare_cell(pair, judge))
    return tuple(differences)


class _Patterns(NamedTuple):
    """The part of nbval's file object that its comparison looks at."""

    sanitize_patterns: dict[str, str]
    skip_compare: tuple[str, ...]


class _Judge:
    """What nbval's comparison needs of its cell; nbval's own class cannot exist outside a pytest session."""

    colors = nocolors
    compare_outputs = IPyNbCell.compare_outputs

    def __init__(
        self, sanitizers: Sequence[Sanitizer], tolerance: float, image_tolerance: float | None
    ) -> None:
        self.parent = _Patterns({}, SKIPPED_KEYS)
        self.sanitizers = tuple(sanitizers)
        self.tolerance = tolerance
        self.image_tolerance = image_tolerance
        self.shortens = False
        self.comparison_traceback: list[str] = []

    def sanitize(self, value: Any) -> Any:
        sanitized = sanitize_value(value, self.sanitizers)
        return shorten(sanitized) if self.shortens and isinstance(sanitized, str) else sanitized

    def format_output_compare(self, key: str, left: object, right: object) -> None:
        """Be called by nbval to explain a difference; ours are explained by `Difference`."""


class _Cell(NamedTuple):
    cell_index: int
    node: NotebookNode

    @property
    def has_table(self) -> bool:
        """Whether one of its outputs is an HTML table."""
        return any(
            "<table" in str(output.get("data", {}).get("text/html", "")) for output in self.node.outputs
        )


class _Pair(NamedTuple):
    expected: _Cell | None
    actual: _Cell | None

    @property
    def is_compared(self) -> bool:
        return all(read_options(cell.node).is_compared for cell in self if cell is not None)

    @property
    def shown(self) -> _Cell:
        cell = self.actual or self.expected
        if cell is None:
            raise ValueError("a pair of cells has at least one cell")
        return cell


def _code_cells(notebook: NotebookNode) -> list[_Cell]:
    written = [cell for cell in notebook.cells if INJECTED_TAG not in read_tags(cell)]
    return [_Cell(index, cell) for index, cell in enumerate(written) if cell.cell_type == "code"]


def _pair_cells(expected: list[_Cell], actual: list[_Cell]) -> Iterator[_Pair]:
    """Pair by cell id where both sides have them, otherwise by order."""
    by_id = {cell.node.get("id"): cell for cell in expected}
    shared_ids = {cell.node.get("id") for cell in actual} & set(by_id) - {None}
    if not shared_ids:
        # Notebooks before nbformat 4.5 have no ids; readers invent new ones each time.
        for number in range(max(len(expected), len(actual))):
            yield _Pair(
                expected[number] if number < len(expected) else None,
                actual[number] if number < len(actual) else None,
            )
        return
    for cell in actual:
        yield _Pair(by_id.get(cell.node.get("id")), cell)
    for cell in expected:
        if cell.node.get("id") not in shared_ids:
            yield _Pair(cell, None)


def _compare_cell(pair: _Pair, judge: _Judge) -> Iterator[Difference]:
    expected, actual = _outputs(pair.expected), _outputs(pair.actual)
    expected_values, actual_values = _values(expected), _values(actual)
    own_tolerance = read_options(pair.shown.node).tolerance
    tolerance = judge.tolerance if own_tolerance is None else own_tolerance
    keys = [key for key in {**expected_values, **actual_values} if key not in SKIPPED_KEYS]
    differing = []
    for key in keys:
        # nbval stops at the first key that differs; asked for one key at a time, it tells all of them.
        others = (*SKIPPED_KEYS, *(other for other in keys if other != key))
        wanted = expected_values.get(key)
        judge.shortens = any(isinstance(value, str) and is_shortened(value) for value in wanted or ())
        if not judge.compare_outputs(actual, expected, skip_compare=others):
            found = _Values(key, wanted, actual_values.get(key), judge)
            if not found.mean_the_same(tolerance):
                differing.append(found)
    yield from _describe_all(pair.shown, differing, tolerance)
    yield from _compare_images(pair.shown, expected_values, actual_values, judge)


class _Values:
    """What a cell gave for one key on both sides, and whether it means the same."""

    def __init__(self, key: str, expected: list[Any] | None, actual: list[Any] | None, judge: _Judge) -> None:
        self.key = key
        self.before, self.after = _text(expected, judge), _text(actual, judge)
        self._pairs = list(zip(expected or [], actual or [], strict=False))
        self._has_pairs = len(expected or []) == len(actual or [])
        self._judge = judge

    def mean_the_same(self, tolerance: float) -> bool:
        """Whether the difference that nbval sees is one of form alone, or within the tolerance."""
        if self.before is None or self.after is None or not self._has_pairs:
            return False
        if self.key == "text/html":
            return all(is_same_html(*self._clean(pair), tolerance) for pair in self._pairs)
        if self.key.endswith("json"):
            return all(is_same_json(*self._clean(pair), tolerance) for pair in self._pairs)
        before, after = sort_sets(self.before), sort_sets(self.after)
        return before == after or bool(tolerance and is_within(before, after, tolerance))

    def differ_in_width_only(self) -> bool:
        """Whether only the blanks between columns differ."""
        return bool(self.before and self.after and is_within(self.before, self.after, 0.0))

    def _clean(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return self._judge.sanitize(pair[0]), self._judge.sanitize(pair[1])


def _describe_all(cell: _Cell, differing: list[_Values], tolerance: float) -> Iterator[Difference]:
    by_key = {one.key: one for one in differing}
    html = by_key.get("text/html")
    for one in differing:
        is_table = one.key == "text/plain" and "<table" in str(one.before) + str(html.before if html else "")
        if one.key == "text/plain" and html is None and cell.has_table and one.differ_in_width_only():
            continue  # the table itself is the same, and columns are as wide as their longest value
        cells = ""
        if html is not None and html.before and html.after and (is_table or one is html):
            cells = table_differences(html.before, html.after, tolerance)
        yield _describe(cell, one.key, one.before, one.after, cells)


def _compare_images(
    cell: _Cell, expected: dict[str, list[Any]], actual: dict[str, list[Any]], judge: _Judge
) -> Iterator[Difference]:
    if judge.image_tolerance is None:
        return
    for key in IMAGE_KEYS:
        before, after = expected.get(key, []), actual.get(key, [])
        if len(before) != len(after):
            # Baselines of earlier releases, and cells whose pictures are not kept, have none.
            if before:
                yield _describe(cell, key, f"{len(before)} picture(s)", f"{len(after)} picture(s)")
            continue
        for number, (one, other) in enumerate(zip(before, after, strict=True), start=1):
            distance = image_distance(one, other)
            if distance > judge.image_tolerance:
                found = _describe(
                    cell, key, f"picture {number}", f"picture {number}, other by {distance:.3f}"
                )
                yield replace(found, image=difference_picture(one, other))


def _outputs(cell: _Cell | None) -> list[Any]:
    if cell is None:
        return []
    # nbval joins streams in place.
    return list(coalesce_streams(copy.deepcopy(cell.node.outputs)))


def _values(outputs: list[Any]) -> dict[str, list[Any]]:
    """Collect the values of each key as nbval does, so that what is shown is what was judged."""
    values: dict[str, list[Any]] = {}
    for output in transform_streams_for_comparison(outputs):
        flat = {**{key: value for key, value in output.items() if key != "data"}, **output.get("data", {})}
        for key, value in flat.items():
            values.setdefault(key, []).append(value)
    return values


def _text(values: list[Any] | None, judge: _Judge) -> str | None:
    return None if values is None else "\n".join(_as_text(judge.sanitize(value)) for value in values)


def _as_text(value: Any) -> str:
    return (
        value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    )


def _describe(cell: _Cell, key: str, expected: str | None, actual: str | None, cells: str = "") -> Difference:
    diff = _unified_diff(expected, actual)
    return Difference(
        cell_index=cell.cell_index,
        execution_count=cell.node.get("execution_count"),
        source=cell.node.source,
        output_key=key,
        expected=expected,
        actual=actual,
        diff=f"{diff}\n\n{cells}" if cells else diff,
    )


def _unified_diff(expected: str | None, actual: str | None) -> str:
    before, after = (expected or "").splitlines(), (actual or "").splitlines()
    if before == after:
        return "(only the ends of the lines differ, or how the text is divided into outputs)"
    start = _first_difference(before, after)
    window = slice(max(0, start - _DIFF_CONTEXT_COUNT), start + _COMPARED_LINE_COUNT)
    names = (
        "expected" if expected is not None else "expected (nothing)",
        "actual" if actual is not None else "actual (nothing)",
    )
    lines = list(
        difflib.unified_diff(before[window], after[window], *names, n=_DIFF_CONTEXT_COUNT, lineterm="")
    )
    hidden_count = len(lines) - _DIFF_LINE_COUNT
    if hidden_count > 0:
        lines = [*lines[:_DIFF_LINE_COUNT], f"... and {hidden_count} more lines of difference"]
    return "\n".join(lines)


def _first_difference(before: list[str], after: list[str]) -> int:
    pairs = zip(before, after, strict=False)
    return next(
        (number for number, (one, other) in enumerate(pairs) if one != other), min(len(before), len(after))
    )

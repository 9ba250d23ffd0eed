"""What a cell asks of the runner through its tags and comments.

Owns the words: nbval's tags and comment markers, jupyter's ``raises-exception`` and ``skip``, and our
``rk-ignore-output`` and ``rk-tolerance=...``. Invariant: runner and comparison read a cell the same way,
through `read_options`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbformat import NotebookNode
from nbval.plugin import find_comment_markers, find_metadata_tags

from research_kit.errors import ConfigError

__all__ = ["INJECTED_TAG", "CellOptions", "read_options", "read_tags"]

INJECTED_TAG = "injected-parameters"
_IGNORE_TAGS = frozenset({"rk-ignore-output"})
_TOLERANCE = "rk-tolerance="
_SKIP_TAGS = frozenset({"skip", "skip-execution"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """How one cell is treated.

    Attributes:
        is_skipped: The cell is not executed.
        is_compared: Its outputs are compared.
        may_raise: An exception in it is expected.
        tolerance: How far its numbers may differ; None leaves that to the plan.
    """

    is_skipped: bool
    is_compared: bool
    may_raise: bool
    tolerance: float | None


def read_tags(cell: NotebookNode) -> frozenset[str]:
    """Return the tags of ``cell``; malformed metadata counts as no tags."""
    tags = cell.metadata.get("tags", [])
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset()


def read_options(cell: NotebookNode) -> CellOptions:
    """Read tags and comments of ``cell``; a comment wins over a tag, as in nbval.

    Raises:
        ConfigError: When a tolerance is not a number.
    """
    tags = read_tags(cell)
    found = {**dict(find_metadata_tags({"tags": sorted(tags)})), **dict(find_comment_markers(cell.source))}
    return CellOptions(
        is_skipped=found.get("skip", False) or not tags.isdisjoint(_SKIP_TAGS),
        is_compared=found.get("check", True) and tags.isdisjoint(_IGNORE_TAGS),
        may_raise=found.get("check_exception", False),
        tolerance=next((_read_tolerance(tag) for tag in sorted(tags) if tag.startswith(_TOLERANCE)), None),
    )


def _read_tolerance(tag: str) -> float:
    try:
        tolerance = float(tag.removeprefix(_TOLERANCE))
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"The cell tag {tag!r} has no usable tolerance. Write it as {_TOLERANCE}1e-6.")
    return tolerance

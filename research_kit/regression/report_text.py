"""What a person reads at a terminal, and in the text of other reports, about a run that needs a look.

Owns the text. Invariant: it names the notebook, the cell with its source, what was wrong, and where the
executed copy and the traces are; what a notebook wrote stands behind a bar, so it never passes for a line of
ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from research_kit.plain_text import plain_text, quoted_lines
from research_kit.regression.repeats import Repeats
from research_kit.regression.shown_text import shown_block
from research_kit.regression.summary import RunSummary, summarize

if TYPE_CHECKING:
    from research_kit.regression.check import Check

__all__ = ["format_check", "format_message", "format_summary"]

_SOURCE_LINE_COUNT = 20


def format_check(check: Check, *, root: Path | None = None) -> str:
    """Describe why ``check`` failed.

    Args:
        check: A check that did not pass.
        root: The folder that paths are shown relative to.
    """
    return format_summary(summarize(Repeats(checks=(check,)), root), root=root, remedy=_remedy(check, root))


def format_summary(one: RunSummary, *, root: Path | None = None, remedy: str = "") -> str:
    """Describe a run.

    Args:
        one: The run.
        root: The folder that paths are shown relative to.
        remedy: What to do about it.
    """
    lines = [format_message(one.message)] if one.message else []
    lines += [f"  {format_message(problem)}" for problem in one.problems]
    for cell in one.cells:
        lines += ["", f"{_name(one)}, {cell.heading}:", *_source(cell.source)]
        for title, text in cell.details:
            lines += ["", *([f"{title}:"] if title else []), *quoted_lines(text)]
    places = [*_places(one, root), *([remedy] if remedy else [])]
    return "\n".join([*lines, *(["", *places] if places else [])])


def format_message(text: str) -> str:
    """Return a message: its first line, and what follows it, such as the text of an exception, quoted."""
    first, _, rest = shown_block(text).partition("\n")
    return "\n".join([plain_text(first), *(quoted_lines(rest) if rest else [])])


def _name(one: RunSummary) -> str:
    stem = PurePath(one.path).stem
    set_name = one.name.removeprefix(f"{stem}.")
    return one.path if set_name == one.name else f"{one.path} [{set_name}]"


def _places(one: RunSummary, root: Path | None) -> Iterator[str]:
    if one.session_url:
        yield f"Traces: {one.session_url}"
    if one.output_path:
        yield f"Executed copy: {_relative(Path(one.output_path), root)}"
    if one.sent_to:
        yield f"Sent to: {one.sent_to}"
    if one.accepted_path:
        yield f"Accepted: {one.accepted_path}"


def _remedy(check: Check, root: Path | None) -> str:
    if not check.differences:
        return ""
    planned = check.planned
    if planned.address:
        command = f"research-kit test {shlex.quote(planned.name)} --accept"
    else:
        command = f"pytest {shlex.quote(planned.place(root))} --rk-accept"
    return plain_text(f"If the new outputs are right: {command}")


def _source(source: str) -> list[str]:
    lines = quoted_lines(source or "(empty)")
    hidden_count = len(lines) - _SOURCE_LINE_COUNT
    return lines if hidden_count <= 0 else [*lines[:_SOURCE_LINE_COUNT], f"... {hidden_count} more lines"]


def _relative(path: Path, root: Path | None) -> Path:
    return path.relative_to(root) if root is not None and path.is_relative_to(root) else path

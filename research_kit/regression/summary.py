"""One run in the form in which it is reported: plain texts and numbers.

Owns what reports know of a run. Invariant: a summary is JSON and crosses processes and machines whole, and
each of its texts is fit to be shown, whatever the notebook and its files are named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_kit.regression.report import CellText, describe_cells, describe_problem
from research_kit.regression.shown_text import shown_block, shown_line

if TYPE_CHECKING:
    from research_kit.regression.repeats import Repeats

__all__ = ["RunSummary", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One notebook and parameter set, as reports show it.

    Attributes:
        name: The notebook and its parameter set.
        path: The notebook, relative to the project; or its address.
        verdict: ``passed``, ``flaky``, ``accepted``, ``differs``, ``failed``, ``timeout``, ``crashed`` or
            ``not_started``.
        message: What happened, in short; empty when it passed.
        problems: What its traces say against it.
        cells: The cells to look at.
        duration_s: How long it took.
        start_time_s: When it began, in seconds since 1970.
        output_path: The executed copy; empty when there is none.
        session_url: The page of its traces; empty when there is none.
        parameters: The parameters, as JSON; empty without any.
        expected_from: ``baseline``, ``own outputs`` or ``none``.
        accepted_path: The baseline that was written; empty when none was.
        changed_count: How many outputs accepting has changed.
        repeats: What repeated runs showed; empty for a single one.
        cost_usd: What its language model calls cost; None when unknown or not traced.
        total_tokens: Their tokens; None when not traced.
        lm_call_count: How many there were; None when not traced.
        tool_call_count: How many tool calls there were; None when not traced.
        sent_to: The address that the executed copy was sent to; empty for none.
    """

    name: str
    path: str
    verdict: str
    message: str
    problems: tuple[str, ...]
    cells: tuple[CellText, ...]
    duration_s: float
    start_time_s: float
    output_path: str
    session_url: str
    parameters: str
    expected_from: str
    accepted_path: str
    changed_count: int
    repeats: str
    cost_usd: float | None
    total_tokens: int | None
    lm_call_count: int | None
    tool_call_count: int | None
    sent_to: str = ""

    def __post_init__(self) -> None:
        """Make the texts fit to be shown, wherever the summary comes from."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                show = shown_block if field.name == "message" else shown_line
                object.__setattr__(self, field.name, show(value))
        object.__setattr__(self, "problems", tuple(map(shown_block, self.problems)))

    @property
    def is_passed(self) -> bool:
        """Whether the run is no failure."""
        return self.verdict in ("passed", "flaky", "accepted")

    def to_json(self) -> str:
        """Return the summary as a JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunSummary:
        """Read what `to_json` returned."""
        values: dict[str, Any] = json.loads(text)
        cells = [
            CellText(**{**cell, "details": tuple(map(tuple, cell["details"]))}) for cell in values["cells"]
        ]
        return cls(**{**values, "cells": tuple(cells), "problems": tuple(values["problems"])})


def summarize(repeats: Repeats, root: Path | None) -> RunSummary:
    """Return what reports show of one or several runs of a notebook.

    Args:
        repeats: The runs.
        root: The folder that paths are shown relative to; None shows them whole.
    """
    check = repeats.shown
    run, facts = check.run, check.run.facts
    is_accepted = check.accepted_path is not None and check.is_passed
    verdict = "flaky" if repeats.is_flaky else "accepted" if is_accepted else check.verdict
    return RunSummary(
        name=check.planned.name,
        path=check.planned.place(root),
        verdict=verdict,
        message=describe_problem(check, root=root),
        problems=check.trace_problems,
        cells=tuple(describe_cells(check)),
        duration_s=sum(one.run.duration_s for one in repeats.checks),
        start_time_s=run.start_time_s,
        output_path=str(run.output_path) if run.output_path.exists() else "",
        session_url=run.session_url or "",
        parameters=_parameters(check.planned.parameters),
        expected_from=check.expected_from,
        accepted_path="" if check.accepted_path is None else str(check.accepted_path),
        changed_count=check.changed_count,
        repeats=repeats.describe() if len(repeats.checks) > 1 else "",
        cost_usd=None if facts is None or facts.unknown_cost_count else facts.cost_usd,
        total_tokens=None if facts is None else facts.total_tokens,
        lm_call_count=None if facts is None else facts.lm_call_count,
        tool_call_count=None if facts is None else len(facts.tools),
        sent_to=run.sent_to or "",
    )


def _parameters(parameters: Mapping[str, object]) -> str:
    return json.dumps(dict(parameters), default=str, ensure_ascii=False) if parameters else ""

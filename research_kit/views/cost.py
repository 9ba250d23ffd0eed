"""What something cost: a session, a cell, a block of code.

Owns the report; what is called meanwhile is counted by `meter`. Invariant: an unknown cost is said to be
unknown, never counted as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import pandas as pd

from research_kit import session
from research_kit._words import cost_text, duration_text, tokens_text
from research_kit.errors import ConfigError
from research_kit.store.markup import Markup, element
from research_kit.traces.analysis import cost_by
from research_kit.traces.reads import observations_df
from research_kit.views.facts import Fact, fact_line, facts
from research_kit.views.meter import Measurement, meter
from research_kit.views.source import SourceOptions, read_options
from research_kit.views.style import styled
from research_kit.views.texts import known, plain_line
from research_kit.views.view import View

__all__ = ["CostReport", "measure_cost", "session_cost"]

_NAME_LENGTH = 40
_RUNNING = "It is still running."


class CostReport(View):
    """What LM calls cost, as a sum and by model.

    Attributes:
        title: What cost it.
        notes: What the figures leave out.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.notes: list[str] = [_RUNNING]
        self._by_model: pd.DataFrame | None = None
        self._latency_s: float | None = None

    def fill(self, frame: pd.DataFrame, *, latency_s: float | None = None, notes: list[str]) -> None:
        """Take the observations that cost something."""
        self._by_model, self._latency_s, self.notes = cost_by(frame, "model"), latency_s, notes

    @property
    def by_model(self) -> pd.DataFrame:
        """Costs and tokens per model, as from `cost_by`.

        Raises:
            ConfigError: While what is measured is still running.
        """
        if self._by_model is None:
            raise ConfigError("The cost is not known before the block has ended. Look at it after the block.")
        return self._by_model

    @property
    def cost_usd(self) -> float | None:
        """The sum of the costs that are known, in US dollars; None when none is."""
        total: float | None = known(self.by_model["cost_usd"].sum(min_count=1))
        return total

    @property
    def unpriced_count(self) -> int:
        """LM calls of unknown cost."""
        return int(self.by_model["unpriced_count"].sum())

    @property
    def call_count(self) -> int:
        """LM calls."""
        return int(self.by_model["call_count"].sum())

    def to_html(self) -> str:
        """Return the figures as one element of HTML."""
        notes = [element("p", note, class_="rk-note") for note in self.notes]
        if self._by_model is None:
            return styled(element("div", self.title, class_="rk-title"), *notes)
        table = _table(self.by_model) if len(self.by_model) > 1 else None
        return styled(element("div", self.title, class_="rk-title"), facts(self._facts()), table, *notes)

    def compose_text(self) -> str:
        """Return the figures as lines of text."""
        if self._by_model is None:
            return "\n".join([self.title, *self.notes])
        rows = [f"  {' · '.join(cells)}" for cells in _cells(self.by_model)] if len(self.by_model) > 1 else []
        return "\n".join([f"{self.title}: {fact_line(self._facts())}", *rows, *self.notes])

    def _facts(self) -> list[Fact]:
        sums = self.by_model[["input_tokens", "output_tokens"]].sum(min_count=1)
        models = [known(model) for model in self.by_model["model"]]
        return [
            ("cost", cost_text(self.cost_usd, self.unpriced_count) if self.call_count else "$0"),
            ("LM calls", f"{self.call_count:,}"),
            ("tokens", tokens_text(*map(_whole, sums)) if self.call_count else None),
            ("time", None if self._latency_s is None else duration_text(self._latency_s)),
            ("model", plain_line(models[0], _NAME_LENGTH) if len(models) == 1 and models[0] else None),
        ]


@contextmanager
def measure_cost(title: str = "This block") -> Iterator[CostReport]:
    """Measure what the LM calls of a block cost, also those of its threads and tasks.

    Counted is every call of this process that begins while the block runs, and ends before it does; of calls
    inside one another, the innermost. A message sent in the chat panel meanwhile counts too.

    Args:
        title: What the report is called.

    Yields:
        The report, which is filled when the block has ended.
    """
    report = CostReport(title)
    measurement = meter().start()
    try:
        yield report
    finally:
        measurement.stop()
        report.fill(measurement.to_frame(), latency_s=measurement.latency_s, notes=_notes(measurement))


def session_cost(session_id: str | None = None, **options: Unpack[SourceOptions]) -> CostReport:
    """Return what a session has cost so far, as a sum and by model, read from where its traces go.

    Args:
        session_id: The session; None means that of this kernel.
        **options: `SourceOptions`: ``reader``, ``cache``, ``refresh``, ``progress``.

    Raises:
        ConfigError: When no session is bound, or the session does not exist.
        BackendError: When the server cannot be read.
    """
    # Inputs and outputs are most of the bytes, and cost nothing more.
    frame = observations_df(session_id, includes_io=False, **read_options(options))
    report = CostReport("This session" if session_id is None else f"Session {session_id}")
    report.fill(frame, notes=_unpriced_note(frame) + _delay_note(session_id))
    return report


def _notes(measurement: Measurement) -> list[str]:
    if not measurement.is_counted:
        return [
            f"Nothing could be counted: tracing is off ({session.status().reason or session.status().state})."
        ]
    running = measurement.running_count
    late = (
        f"{running} call{' was' if running == 1 else 's were'} still running and not counted."
        if running
        else ""
    )
    return [*_unpriced_note(measurement.to_frame()), *filter(None, [late])]


def _unpriced_note(frame: pd.DataFrame) -> list[str]:
    count = int(cost_by(frame, "model")["unpriced_count"].sum())
    return [f"{count} call{' has' if count == 1 else 's have'} no known price."] if count else []


def _delay_note(session_id: str | None) -> list[str]:
    is_remote = session_id is None and session.status().state not in ("local", "disabled")
    return ["A Langfuse server shows calls some seconds after they ended."] if is_remote else []


def _table(by_model: pd.DataFrame) -> Markup:
    names = ("model", "cost", "LM calls", "tokens")
    rows = [element("tr", *(element("td", cell) for cell in cells)) for cells in _cells(by_model)]
    head = element("thead", element("tr", *(element("th", name) for name in names)))
    return element("table", head, element("tbody", *rows), class_="rk-table")


def _cells(by_model: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (
            plain_line(known(row["model"]) or "(no name)", _NAME_LENGTH),
            cost_text(known(row["cost_usd"]), row["unpriced_count"]),
            f"{row['call_count']:,}",
            tokens_text(_whole(row["input_tokens"]), _whole(row["output_tokens"])),
        )
        for row in by_model.to_dict("records")
    ]


def _whole(value: Any) -> int | None:
    found = known(value)
    return None if found is None else int(found)

"""Several runs of one notebook, judged together.

Owns the verdict over repeated runs: a notebook that passes sometimes is flaky, which is told and is no
failure. Invariant: one run is judged as by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from research_kit.regression.check import Check

__all__ = ["Repeats", "repeat_check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """The runs of one notebook.

    Attributes:
        checks: One per run, in order.
    """

    checks: tuple[Check, ...]

    @property
    def passed_count(self) -> int:
        """How many runs passed."""
        return sum(check.is_passed for check in self.checks)

    @property
    def is_flaky(self) -> bool:
        """Whether some runs passed and others did not."""
        return 0 < self.passed_count < len(self.checks)

    @property
    def shown(self) -> Check:
        """The run to be told about: the first that did not pass, else the last."""
        return next((check for check in self.checks if not check.is_passed), self.checks[-1])

    @property
    def is_passed(self) -> bool:
        """Whether the notebook is as expected; a flaky one is not red."""
        return self.passed_count > 0

    def describe(self) -> str:
        """Return one line: how many runs passed, and the spread of cost, tokens and duration."""
        parts = [f"{self.passed_count} of {len(self.checks)} runs passed"]
        facts = [check.run.facts for check in self.checks if check.run.facts is not None]
        if any(one.lm_call_count for one in facts):
            parts.append(_spread("cost", [one.cost_usd for one in facts], "USD"))
            parts.append(_spread("tokens", [float(one.total_tokens) for one in facts], ""))
        parts.append(_spread("took", [check.run.duration_s for check in self.checks], "s"))
        return ", ".join(parts)


def repeat_check(check_once: Callable[[], Check], *, count: int) -> Repeats:
    """Run a check ``count`` times, one after the other."""
    return Repeats(checks=tuple(check_once() for _ in range(max(1, count))))


def _spread(name: str, values: Sequence[float], unit: str) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    text = f"{name} {middle:.4g}" if low == high else f"{name} {middle:.4g} ({low:.4g} to {high:.4g})"
    return f"{text} {unit}".rstrip()

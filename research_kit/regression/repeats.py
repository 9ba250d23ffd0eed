"""Several runs of one notebook, judged together.

Owns the verdict over repeated runs: a notebook that passes sometimes is flaky, which is told and is no
failure; what live runs cost is judged once, over all of them. Invariant: one run is judged as by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from research_kit.regression.check import Check, CheckOptions, check_once
from research_kit.regression.plan import NotebookPlan, Plan
from research_kit.regression.trace_baseline import (
    Tolerances,
    compare_repeats,
    read_trace_baseline,
    write_trace_baseline,
)
from research_kit.regression.trace_facts import TraceFacts
from research_kit.regression.warm_kernels import WarmKernels

__all__ = ["Repeats", "repeat_check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """The runs of one notebook.

    Attributes:
        checks: One per run, in order.
        problems: What the traces of all runs together say against the notebook, a sentence each.
    """

    checks: tuple[Check, ...]
    problems: tuple[str, ...] = ()

    @property
    def passed_count(self) -> int:
        """How many runs passed."""
        return sum(check.is_passed for check in self.checks)

    @property
    def is_flaky(self) -> bool:
        """Whether some runs passed and others did not, with nothing against all together."""
        return 0 < self.passed_count < len(self.checks) and not self.problems

    @property
    def shown(self) -> Check:
        """The run to be told about: the first that did not pass, else the last, with what is said of all."""
        told = next((check for check in self.checks if not check.is_passed), self.checks[-1])
        return self._with_problems(told)

    @property
    def recorded(self) -> tuple[Check, ...]:
        """The runs as they go into the history, where the last one stands for the notebook."""
        return (*self.checks[:-1], self._with_problems(self.checks[-1]))

    def _with_problems(self, check: Check) -> Check:
        return replace(check, trace_problems=(*check.trace_problems, *self.problems))

    @property
    def is_passed(self) -> bool:
        """Whether the notebook is as expected; a flaky one is not red."""
        return self.passed_count > 0 and not self.problems

    def describe(self) -> str:
        """Return one line: how many runs passed, and the spread of cost, tokens and duration."""
        parts = [f"{self.passed_count} of {len(self.checks)} runs passed"]
        facts = [check.run.facts for check in self.checks if check.run.facts is not None]
        if any(one.lm_call_count for one in facts):
            parts.append(_spread("cost", [one.cost_usd for one in facts], "USD"))
            parts.append(_spread("tokens", [float(one.total_tokens) for one in facts], ""))
        parts.append(_spread("took", [check.run.duration_s for check in self.checks], "s"))
        return ", ".join(parts)


def repeat_check(
    planned: NotebookPlan,
    plan: Plan,
    options: CheckOptions,
    *,
    count: int,
    warm_kernels: WarmKernels | None = None,
) -> Repeats:
    """Do `check_notebook` ``count`` times, one after the other, and judge the runs together.

    Cost, tokens and latency of live runs are compared with the accepted ones over all runs: see
    `compare_samples`. Accepting keeps the numbers of all of them.

    Raises:
        ConfigError: As `check_notebook`.
    """
    options = replace(options, is_repeated=count > 1)
    checks = tuple(check_once(planned, plan, options, warm_kernels) for _ in range(max(1, count)))
    if options.accept:
        _accept_all(planned, checks)
    is_judged = options.is_repeated and not options.accept
    return Repeats(checks=checks, problems=_judge(planned, plan, checks) if is_judged else ())


def _accept_all(planned: NotebookPlan, checks: Sequence[Check]) -> None:
    facts = _live_facts([check for check in checks if check.accepted_path is not None])
    if len(facts) > 1 and facts[-1].observation_count:
        write_trace_baseline(planned.trace_baseline_path, facts[-1], facts)


def _judge(planned: NotebookPlan, plan: Plan, checks: Sequence[Check]) -> tuple[str, ...]:
    facts = _live_facts(checks)
    accepted = read_trace_baseline(planned.trace_baseline_path) if facts else None
    if accepted is None:
        return ()
    tolerances = Tolerances(trace=plan.trace_tolerance, latency=plan.latency_tolerance)
    return compare_repeats(accepted, facts, tolerances)


def _live_facts(checks: Sequence[Check]) -> list[TraceFacts]:
    """Return what the runs did that came to their end with a live model."""
    runs = [check.run for check in checks if check.run.outcome == "passed" and not check.run.is_replayed]
    return [run.facts for run in runs if run.facts is not None]


def _spread(name: str, values: Sequence[float], unit: str) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    text = f"{name} {middle:.4g}" if low == high else f"{name} {middle:.4g} ({low:.4g} to {high:.4g})"
    return f"{text} {unit}".rstrip()

"""Repeated runs against accepted ones: what is worse, what is noise, and what the baseline keeps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import permutation_test

from research_kit.errors import ConfigError
from research_kit.regression.significance import compare_samples
from research_kit.regression.trace_baseline import (
    Tolerances,
    compare_repeats,
    compare_traces,
    read_trace_baseline,
    write_trace_baseline,
)
from research_kit.regression.trace_facts import TraceFacts

CALM = [1.0, 1.1, 0.9, 1.05, 0.95]
NOISY = [1.0, 4.0, 0.5, 2.0, 0.8]


@pytest.mark.parametrize(
    ("before", "after", "is_worse"),
    [
        pytest.param(CALM, CALM, False, id="the same"),
        pytest.param(CALM, [value * 1.5 for value in CALM], True, id="every run dearer"),
        pytest.param(CALM, [value * 1.05 for value in CALM], False, id="within the tolerance"),
        pytest.param(NOISY, [4.1, 1.0, 2.1, 0.9, 1.2], False, id="noise"),
        pytest.param(CALM, [0.5] * 5, False, id="cheaper"),
        pytest.param([1.0], [1.5, 1.6, 1.4, 1.7, 1.5], True, id="one accepted number"),
        pytest.param([1.0], [0.9, 1.9, 0.8, 1.9, 0.9], False, id="one accepted number, noise"),
        pytest.param([1.0, 1.1], [2.0, 2.1], True, id="two against two, apart"),
        pytest.param([1.0, 1.1], [1.05, 3.0], False, id="two against two, overlapping"),
        pytest.param([0.0] * 5, [0.1] * 5, True, id="free before"),
        pytest.param(CALM, [1.5], True, id="one new run above all"),
        pytest.param(NOISY, [3.0], False, id="one new run within the spread"),
    ],
)
def test_a_mean_is_worse_beyond_tolerance_and_chance(before, after, is_worse):
    """A measure is worse when its mean is beyond the tolerance and chance would not do it; SciPy agrees."""
    found = compare_samples(before, after)
    assert found.is_worse(tolerance=0.1, resolution=1e-9) is is_worse
    assert compare_samples(before, after) == found
    assert found.p_value == pytest.approx(p_of_scipy(before, after) if found.after > found.before else 1.0)


def p_of_scipy(before: list[float], after: list[float]) -> float:
    if len(after) == 1:
        return sum(value >= after[0] for value in (*before, *after)) / (len(before) + 1)
    if len(before) == 1:
        differences = (np.array(after) - before[0],)
        found = permutation_test(differences, np.mean, permutation_type="samples", alternative="greater")
    else:
        found = permutation_test((after, before), lambda a, b: np.mean(a) - np.mean(b), alternative="greater")
    return float(found.pvalue)


@pytest.mark.parametrize("before", [[1 + number % 7 / 10 for number in range(30)], [1.3]])
def test_many_runs_are_dealt_out_at_random_and_repeatably(before):
    """Beyond 20,000 regroupings a sample of them decides, the same each time, and p is never 0."""
    after = [1.2 + number % 7 / 10 for number in range(30)]
    found = compare_samples(before, after)
    assert found == compare_samples(before, after)
    assert 1e-4 <= found.p_value < 0.05


def facts(cost: float = 0.001, latency: float | None = 1.0, tokens: int = 100) -> TraceFacts:
    return TraceFacts(
        observation_count=1, lm_call_count=1, input_tokens=tokens, cost_usd=cost, lm_latency_p50_s=latency
    )


def test_the_baseline_keeps_repeats_only_of_repeated_runs(tmp_path):
    """One run writes its numbers alone; several add theirs; a file with other repeats is refused."""
    path = tmp_path / "a.trace.json"
    write_trace_baseline(path, facts())
    alone = path.read_bytes()
    assert "repeats" not in read_trace_baseline(path)
    write_trace_baseline(path, facts(), [facts()])
    assert path.read_bytes() == alone
    runs = [facts(0.001, 1.23456), facts(0.002, None)]
    write_trace_baseline(path, runs[-1], runs)
    accepted = read_trace_baseline(path)
    assert accepted["cost_usd"] == 0.002
    assert accepted["repeats"] == {
        "cost_usd": [0.001, 0.002],
        "total_tokens": [100, 100],
        "lm_latency_p50_s": [1.235],
    }
    path.write_text(json.dumps({**accepted, "repeats": {"cost_usd": ["a"]}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="is no baseline of traces"):
        read_trace_baseline(path)


def test_repeated_runs_are_compared_with_what_was_accepted(tmp_path):
    """The sentence names means, change, p and counts; latency is compared with repeats only."""
    path = tmp_path / "a.trace.json"
    tolerances = Tolerances(trace=0.1)
    runs = [facts(0.001 * value, 1.0 * value) for value in CALM]
    dearer = [facts(0.002 * value, 2.0 * value) for value in CALM]
    write_trace_baseline(path, runs[0], runs)
    accepted = read_trace_baseline(path)
    assert compare_repeats(accepted, runs, tolerances) == ()
    assert compare_repeats(accepted, dearer, tolerances) == (
        "cost_usd: 0.002 on average of 5 runs, accepted were 0.001 on average of 5 runs "
        "(+100 %, p = 0.004); trace_tolerance is 0.1.",
        "lm_latency_p50_s: 2 on average of 5 runs, accepted were 1 on average of 5 runs "
        "(+100 %, p = 0.004); latency_tolerance is 0.5.",
    )
    write_trace_baseline(path, runs[0])
    (told,) = compare_repeats(read_trace_baseline(path), dearer, tolerances)
    assert told.startswith("cost_usd: 0.002 on average of 5 runs, accepted were 0.001 (+100 %, p = 0.031); ")
    # A single run: as before without repeats, above all of them with.
    (told,) = compare_traces(read_trace_baseline(path), facts(0.002), tolerance=0.1, is_replayed=False)
    assert told == "cost_usd: 0.002, accepted were 0.001 (+100 %); trace_tolerance is 0.1."
    assert len(compare_traces(accepted, facts(0.0012), tolerance=0.1, is_replayed=False)) == 1
    # A replayed run is compared with the run that was recorded, which is the one that stands first.
    assert compare_traces({**accepted, "cost_usd": 0.002}, facts(0.002), tolerance=0, is_replayed=True) == ()

"""Comparisons: pairs, intervals and effect sizes, checked against published figures and brute force."""

from __future__ import annotations

import itertools
import math

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import coverage
from research_kit.errors import ConfigError
from research_kit.traces import compare
from research_kit.traces.analysis.intervals import Uncertainty, hedges_g, rank_effect

_SAMPLES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=7).map(np.array)


def _yes(count: int, total: int) -> np.ndarray:
    return np.array([1.0] * count + [0.0] * (total - count))


@given(a=_SAMPLES, b=_SAMPLES)
@settings(max_examples=80, deadline=None)
def test_effect_sizes_of_independent_samples_are_those_of_brute_force(a, b) -> None:
    """Cliff's delta counts all combinations; Hedges' g is Cohen's d times the exact correction."""
    wins = [np.sign(y - x) for x, y in itertools.product(a, b)]
    assert rank_effect(a, b, is_paired=False) == pytest.approx(np.mean(wins))
    spread = math.sqrt((np.sum((a - a.mean()) ** 2) + np.sum((b - b.mean()) ** 2)) / (len(a) + len(b) - 2))
    if spread == 0:
        assert math.isnan(hedges_g(a, b))
        return
    m = len(a) + len(b) - 2
    correction = math.gamma(m / 2) / (math.sqrt(m / 2) * math.gamma((m - 1) / 2)) if m > 1 else 0.0
    assert hedges_g(a, b) == pytest.approx(correction * (b.mean() - a.mean()) / spread)


@given(pairs=st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_the_effect_size_of_pairs_follows_its_definition(pairs) -> None:
    """The rank-biserial correlation is the ranks won less the ranks lost, by all ranks."""
    a, b = np.array(pairs, dtype="float64").T
    differences = [y - x for x, y in pairs if y != x]
    sizes = sorted(abs(value) for value in differences)
    ranks = [np.mean([n + 1 for n, size in enumerate(sizes) if size == abs(v)]) for v in differences]
    won = sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0)
    lost = sum(rank for rank, value in zip(ranks, differences, strict=True) if value < 0)
    expected = (won - lost) / (won + lost) if differences else 0.0
    assert rank_effect(a, b, is_paired=True) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("b", "a", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_intervals_of_rates_are_the_published_ones(b, a, low, high) -> None:
    """Newcombe 1998, table II, method 10; also where a bootstrap would find no spread at all."""
    interval = Uncertainty().interval(_yes(*a), _yes(*b), is_paired=False, is_rate=True)
    assert interval[:2] == pytest.approx((low, high), abs=5e-5)


def test_intervals_of_paired_rates_follow_their_formula() -> None:
    """Agresti and Min 2005: Wald's interval after half a pair was added to each of the four outcomes."""
    outcomes = [(0, 0)] * 20 + [(0, 1)] * 9 + [(1, 0)] * 2 + [(1, 1)] * 13
    a, b = np.array(outcomes, dtype="float64").T
    interval = Uncertainty(confidence=0.9).interval(a, b, is_paired=True, is_rate=True)
    added = np.array([-1.0] * 5 + [1.0] * 19 + [0.0] * (2 * 46 - 24))  # in halves of a pair: 9.5, 2.5 of 46
    reach = 1.6448536269514722 * math.sqrt(added.var() / 46)
    assert interval[:2] == pytest.approx((added.mean() - reach, added.mean() + reach))


def test_the_bootstrap_is_that_of_all_resamples() -> None:
    """The percentiles of so many resamples are those of every possible one."""
    a, b = np.array([1.0, 2.0, 4.0, 9.0]), np.array([3.0, 5.0, 6.0])
    every_a = [np.median(some) for some in itertools.product(a, repeat=len(a))]
    every_b = [np.median(some) for some in itertools.product(b, repeat=len(b))]
    exact = np.subtract.outer(every_b, every_a).ravel()
    rules = Uncertainty(statistic="median", resample_count=40_000, confidence=0.8)
    found = rules.interval(a, b, is_paired=False, is_rate=False)
    assert found[:2] == pytest.approx(np.quantile(exact, [0.1, 0.9]), abs=0.05)


@pytest.mark.parametrize("cell", coverage.COMPARISONS)
def test_intervals_hold_the_true_difference_as_often_as_they_say(cell: str) -> None:
    """Of 95 % intervals 93.5 to 97 % hold the difference of the populations, as the benchmark measures."""
    share = coverage.comparison_coverage(cell, simulation_count=3_000)
    # Three standard errors of 3,000 simulations beside the bounds.
    assert 0.935 - 0.012 <= share <= 0.97 + 0.012


@pytest.mark.parametrize("count", [2, 5, 12_000])
def test_intervals_of_means_are_those_of_students_t(count: int) -> None:
    """Welch's interval, and of pairs that of their differences, whatever the number of rows."""
    rng = np.random.default_rng(2)
    a, b = rng.exponential(1.0, count), rng.exponential(1.1, count)
    found = Uncertainty(confidence=0.9).interval(a, b, is_paired=False, is_rate=False)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    assert found[:2] == pytest.approx((expected.low, expected.high))
    assert found.method == "Welch's t"
    of_pairs = Uncertainty(confidence=0.9).interval(a, b, is_paired=True, is_rate=False)
    expected = stats.ttest_rel(b, a).confidence_interval(0.9)
    assert of_pairs[:2] == pytest.approx((expected.low, expected.high))
    assert of_pairs.method == "paired t"


def _messages(questions: list[str | None], latencies: list[float | None], **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"question": questions, "latency_s": latencies, **columns})
    return frame.astype({"question": "string", "latency_s": "float64"})


def test_messages_that_ask_the_same_are_pairs() -> None:
    """Questions pair in any order, repeated ones in theirs; the differences within pairs are judged."""
    a = _messages(["x", "y", "x", "z"], [10.0, 200.0, 30.0, 4000.0])
    b = _messages(["z", "x", "y", "x"], [4001.0, 11.5, 201.0, 31.5])
    (row,) = compare(a, b).to_dict("records")
    assert (row["metric"], row["is_paired"], row["count_a"], row["count_b"]) == ("latency_s", True, 4, 4)
    assert (row["value_a"], row["value_b"], row["difference"]) == (1060.0, 1061.25, 1.25)
    expected = stats.ttest_1samp([1.5, 1.0, 1.5, 1.0], 0).confidence_interval(0.95)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high))
    assert row["rank_effect"] == 1.0
    apart = compare(a, b, paired=False).iloc[0]
    assert not apart["is_paired"]
    assert apart["difference_low"] < -500 < 500 < apart["difference_high"]


def test_one_row_without_a_match_does_not_undo_the_pairs() -> None:
    """What matches is paired, and how many rows do not is told; they change no interval."""
    rng = np.random.default_rng(5)
    questions = [f"q{n}" for n in range(50)]
    slow = rng.lognormal(size=50)
    a = _messages(questions, list(slow))
    b = _messages(questions[:49], list(slow[:49] - 0.5 + rng.normal(0, 0.01, 49)))
    with pytest.warns(UserWarning, match="1 rows of both frames match no other.*49 pairs"):
        found = compare(a, b)
    row = found.iloc[0]
    assert (row["is_paired"], row["count_a"]) == (True, 49)
    assert found.attrs["unmatched_count"] == 1
    assert -0.51 < row["difference_low"] < row["difference_high"] < -0.49
    with pytest.warns(UserWarning, match="2 rows of both frames"):
        unknown = compare(a, _messages([None, *questions[:49]], [1.0, *slow[1:]]), on="question").iloc[0]
    assert unknown["count_a"] == 49
    apart = compare(a, b, paired=False).iloc[0]
    assert (apart["is_paired"], apart["count_a"], apart["count_b"]) == (False, 50, 49)


def test_a_difference_that_is_always_the_same_is_certain() -> None:
    """The interval of a constant difference in all pairs is the difference itself, also of medians."""
    a = _messages([f"q{n}" for n in range(50)], list(np.linspace(1.0, 9.0, 50)))
    b = a.assign(latency_s=a["latency_s"] - 0.5)
    for statistic in ("mean", "median"):
        row = compare(a, b, statistic=statistic).iloc[0]
        ends = (row["difference"], row["difference_low"], row["difference_high"])
        assert ends == pytest.approx((-0.5, -0.5, -0.5))
    none = compare(a, a).iloc[0]
    assert (none["difference_low"], none["difference_high"]) == (0.0, 0.0)


def test_rates_are_compared_in_points() -> None:
    """A rate has no share of itself: its difference is in points."""
    a, b = (pd.DataFrame({"score_correct": _yes(count, 200)}) for count in (139, 160))
    row = compare(a, b).iloc[0]
    assert (row["is_rate"], round(row["difference"], 3)) == (True, 0.105)
    assert pd.isna(row["relative_difference"])


def test_pairs_are_not_invented() -> None:
    """Rows of which less than half match are independent unless pairs are asked for, and then it is told."""
    a = _messages(["x", "y", "w", "s", "t"], [1.0, 2.0, 3.0, 3.0, 3.0])
    b = _messages(["x", "y", "v", "u", "r", "p"], [2.0, 4.0, 9.0, 9.0, 9.0, 9.0])
    assert compare(a, b)[["is_paired", "count_a", "count_b"]].iloc[0].tolist() == [False, 5, 6]
    with pytest.warns(UserWarning, match="7 rows of both frames match no other"):
        row = compare(a, b, paired=True).iloc[0]
    assert (row["count_a"], row["difference"]) == (2, 1.5)
    unknown = _messages([None, None], [1.0, 2.0])
    assert not compare(unknown, unknown)["is_paired"].any()
    with pytest.raises(ConfigError, match=r"which rows match.*on="):
        compare(unknown, unknown, paired=True)
    with pytest.raises(ConfigError, match="Only 0 rows match on question"):
        compare(a, _messages(["q", "z"], [1.0, 1.0]), paired=True)


def test_missing_values_are_left_out_and_counted() -> None:
    """A pair counts when both values are known, and the statistics are those of the known ones."""
    a = _messages(["x", "y", "z"], [1.0, None, 3.0], is_error=pd.array([True, None, False], "boolean"))
    b = _messages(["x", "y", "z"], [2.0, 5.0, 6.0], is_error=pd.array([False, False, False], "boolean"))
    found = compare(a, b).set_index("metric")
    assert found["count_a"].to_dict() == {"latency_s": 2, "is_error": 2}
    assert found["difference"].to_dict() == {"latency_s": 2.0, "is_error": -0.5}
    assert found.loc["is_error", "interval"] == "Agresti-Min"


def test_comparisons_repeat_and_change_nothing() -> None:
    """The same frames give the same figures, in any process; the frames stay as they were."""
    rng = np.random.default_rng(3)
    a, b = (pd.DataFrame({"latency_s": rng.lognormal(size=40), "score_tone": 1.0}) for _ in "ab")
    before = a.copy(deep=True)
    first = compare(a, b)
    pd.testing.assert_frame_equal(first, compare(a, b))
    pd.testing.assert_frame_equal(a, before)
    assert first["metric"].tolist() == ["latency_s", "score_tone"]
    assert first["interval"].tolist() == ["Welch's t", "Newcombe"]
    assert compare(a, b, statistic="median")["interval"].iloc[0] == "bootstrap, percentile"
    assert first.attrs == {"statistic": "mean", "confidence": 0.95, "unmatched_count": 0}
    swapped = compare(b, a, metrics=["latency_s"]).iloc[0]
    assert swapped["difference"] == pytest.approx(-first["difference"].iloc[0])
    assert swapped["rank_effect"] == pytest.approx(-first["rank_effect"].iloc[0])


def test_frames_without_rows_or_spread_have_no_interval() -> None:
    """An interval of nothing, of one row, or of equal values that are no pairs is missing, not narrow."""
    one, same = pd.DataFrame({"latency_s": [1.0]}), pd.DataFrame({"latency_s": [2.0, 2.0, 2.0]})
    empty = pd.DataFrame({"latency_s": pd.Series([], dtype="float64")})
    for a, b in ((one, same), (same, same), (empty, same), (empty, empty)):
        row = compare(a, b).iloc[0]
        assert row[["difference_low", "difference_high"]].isna().all()
    assert compare(one, same).iloc[0]["difference"] == 1.0
    shifted = _messages(["x", "y", "z"], [0.1, 0.2, 0.7])
    later = shifted.assign(latency_s=shifted["latency_s"] + 0.1)  # not the same to the last digit
    assert compare(shifted, later)["interval"].tolist() == ["all differences the same"]
    assert compare(pd.DataFrame({"x": ["a"]}), one).empty


def test_costs_of_observations_count_once(frame_of, make_row, make_call) -> None:
    """An agent that repeats the cost of its call does not count beside it."""
    agent = make_row(0, type="AGENT", costDetails={"total": 0.5}, totalCost=0.5)
    frame = frame_of([agent, make_call(1, cost=0.5, parentObservationId=agent["id"])])
    assert compare(frame, frame, ["cost_usd"])[["count_a", "value_a"]].iloc[0].tolist() == [1, 0.5]


def test_sessions_are_compared_by_their_messages(fake_server, open_fake, make_row) -> None:
    """Two ids read both conversations; without messages their traces are compared."""
    rows = [
        make_row(n, name="chat", traceId=f"{name}{n}", sessionId=name, input=f'"q{n}"', latency=latency + n)
        for name, latency in (("s1", 1.0), ("s2", 3.0))
        for n in range(3)
    ]
    rows += [make_row(9, traceId="t9", sessionId="s3"), make_row(10, traceId="t10", sessionId="s3")]
    server = fake_server(rows)
    answer = server.answer
    server.answer = lambda request: (
        answer(request)
        if "observations" in request.url.path
        else httpx.Response(200, json={"data": [], "meta": {}})
    )
    reader = open_fake(server)
    found = compare("s1", "s2", ["latency_s"], reader=reader).iloc[0]
    assert (found["is_paired"], found["difference"], found["count_a"]) == (True, 2.0, 3)
    assert compare("s1", "s3", ["latency_s"], reader=reader)["count_b"].tolist() == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["colour"]}, "compare needs the column 'colour'"),
        ({"metrics": ["name"]}, "cannot compare 'name'"),
        ({"statistic": "mode"}, "statistic is 'mode'"),
        ({"confidence": 95}, "confidence is 95"),
        ({"resample_count": 3}, "resample_count is 3"),
        ({"resamples": 300}, r"no argument 'resamples'.*resample_count"),
        ({"on": "colour"}, "compare needs the column 'colour'"),
    ],
)
def test_comparisons_that_cannot_be_made_are_explained(arguments, message) -> None:
    """Each mistake names its value and the remedy."""
    frame = pd.DataFrame({"latency_s": [1.0, 2.0], "name": ["a", "b"]})
    with pytest.raises(ConfigError, match=message):
        compare(frame, frame, **arguments)


def test_only_two_of_a_kind_can_be_compared() -> None:
    """A list, or a session beside a frame, is refused."""
    frame = pd.DataFrame({"latency_s": [1.0]})
    with pytest.raises(ConfigError, match="was given a list"):
        compare([1.0], frame)
    with pytest.raises(ConfigError, match="a session id and a frame"):
        compare("session-1", frame)

"""Critical path, errors, tools, savings, outliers and forecast, checked against independent computations."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import coverage
from research_kit.errors import ConfigError
from research_kit.traces import (
    anomalies,
    cache_savings,
    cost_by,
    critical_path,
    error_summary,
    forecast_cost,
    tool_summary,
)
from research_kit.traces.analysis import RESULTS
from research_kit.traces.analysis.forecasting import predict_days
from research_kit.traces.frames import build_observations

_BEGIN = datetime(2026, 11, 20, 9, tzinfo=UTC)


def _wire(ms: int) -> str:
    return (_BEGIN + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _step(name: str, begin: int, end: int | None, parent: str | None = None, **changes) -> dict[str, object]:
    """Return an observation between two milliseconds."""
    return {
        "id": name, "name": name, "traceId": "t", "type": "SPAN", "parentObservationId": parent,
        "isRootObservation": parent is None, "startTime": _wire(begin),
        "endTime": None if end is None else _wire(end),
        "latency": None if end is None else (end - begin) / 1e3,
        "level": "DEFAULT", "metadata": {}, "sessionId": "s", **changes,
    }  # fmt: skip


def _path(*steps: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Return own and critical milliseconds of each observation."""
    found = critical_path(build_observations(steps))
    numbers = zip(found["name"], found["self_s"], found["critical_s"], strict=True)
    return {name: (round(own * 1e3), round(critical * 1e3)) for name, own, critical in numbers}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([_step("a", 0, 10), _step("b", 1, 4, "a"), _step("c", 4, 9, "a")],
         {"a": (2, 2), "b": (3, 3), "c": (5, 5)}),
        ([_step("a", 0, 10), _step("fast", 1, 4, "a"), _step("slow", 1, 9, "a")],
         {"a": (2, 2), "fast": (3, 0), "slow": (8, 8)}),
        ([_step("a", 0, 10), _step("b", 0, 6, "a"), _step("c", 5, 10, "a")],
         {"a": (0, 5), "b": (6, 0), "c": (5, 5)}),
        ([_step("a", 0, 5), _step("thread", 3, 20, "a")], {"a": (3, 3), "thread": (17, 17)}),
        ([_step("a", 0, 4), _step("b", 6, 9)], {"a": (4, 4), "b": (3, 3)}),
        ([_step("a", 0, 9), _step("mark", 5, 5, "a"), _step("open", 6, None, "a")],
         {"a": (9, 9), "mark": (0, 0), "open": (0, 0)}),
        ([_step("a", 0, 8, "b"), _step("b", 0, 9, "a")], {"a": (0, 0), "b": (1, 0)}),
        ([_step("a", 2, 8, "gone")], {"a": (6, 6)}),
    ],
    ids=["in turn", "side by side", "overlapping", "outlasting", "pause", "no length", "circle", "orphan"],
)  # fmt: skip
def test_critical_paths_of_small_traces(steps, expected) -> None:
    """The path takes what ended last, and before it what ended before that began."""
    if steps[0]["parentObservationId"] == "b":  # one of a circle is cut, whichever it is
        assert sum(critical for _, critical in _path(*steps).values()) == 9
    else:
        assert _path(*steps) == expected


_TREES = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8
)


@given(_TREES)
@settings(max_examples=40, deadline=None)
def test_times_of_any_trace_agree_with_a_stopwatch(drawn) -> None:
    """Own time is each millisecond without anything inside; critical time never counts one twice."""
    steps, bounds = [], []
    for number, (above, begin, length) in enumerate(drawn):
        parent = None if number == 0 else f"n{above % number}"
        steps.append(_step(f"n{number}", begin, begin + length, parent))
        bounds.append((parent, begin, begin + length))
    found = critical_path(build_observations(steps)).set_index("name")
    for number, (_, begin, end) in enumerate(bounds):
        inside = [(b, e) for parent, b, e in bounds if parent == f"n{number}"]
        own = sum(not any(b <= ms < e for b, e in inside) for ms in range(begin, end))
        assert found.loc[f"n{number}", "self_s"] == pytest.approx(own / 1e3)
        assert 0 <= found.loc[f"n{number}", "critical_s"] <= (end - begin) / 1e3 + 1e-9
    running = {ms for _, begin, end in bounds for ms in range(begin, end)}
    total = found["critical_s"].sum() * 1e3
    assert total <= len(running) + 1e-6
    root_begin, root_end = bounds[0][1:]
    if all(root_begin <= begin and end <= root_end for _, begin, end in bounds):
        assert total == pytest.approx(root_end - root_begin)
    assert found.loc["n0", "is_critical"]


def test_a_critical_path_is_that_of_one_trace(frame_of, make_row) -> None:
    """Of several traces one must be named, and it must be there."""
    frame = frame_of([make_row(0, traceId="a"), make_row(1, traceId="b")])
    with pytest.raises(ConfigError, match=r"holds 2 traces.*critical_path\(frame, 'a'\)"):
        critical_path(frame)
    with pytest.raises(ConfigError, match="no trace 'c'"):
        critical_path(frame, "c")
    assert critical_path(frame, "b")["critical_share"].tolist() == [1.0]


def test_an_error_that_rises_counts_once_where_it_came_from(frame_of, make_row) -> None:
    """Of a chain of failed observations the innermost counts; numbers and ids make no new kind."""

    def failed(number: int, message: str, **changes):
        return make_row(number, level="ERROR", statusMessage=message, **changes)

    rows = [
        failed(0, "agent failed", name="agent", traceId="a"),
        failed(
            1, "Timeout after 30.5 s\nat line 3", name="search", traceId="a", parentObservationId=f"{0:016x}"
        ),
        failed(2, "Timeout after 31 s", name="search", traceId="b"),
        failed(3, "no row 7f3a9b2c-1d2e-4f5a-8b9c-0d1e2f3a4b5c at 0x7FFd", name="search", traceId="b"),
        make_row(4, name="search", traceId="b"),
        failed(5, "", name="LM", traceId="c"),
    ]
    found = error_summary(frame_of(rows))
    assert found[["name", "error", "error_count", "trace_count", "observation_count"]].fillna(
        "-"
    ).to_numpy().tolist() == [
        ["search", "Timeout after # s", 2, 2, 4],
        ["LM", "-", 1, 1, 1],
        ["search", "no row # at #", 1, 1, 4],
    ]
    assert found["error_rate"].tolist() == [0.5, 1.0, 0.25]
    assert found["example_observation_id"].tolist()[0] == f"{2:016x}"
    assert error_summary(frame_of(rows), None)["observation_count"].unique().tolist() == [6]


def test_tools_are_summed_up_per_call(frame_of, make_row, make_call) -> None:
    """Both sides of an MCP call are one call; the cost of what a tool asks of an LM is the tool's."""
    outer = make_row(0, type="TOOL", name="search", latency=2.0)
    server_side = make_row(1, type="TOOL", name="search", parentObservationId=outer["id"], latency=1.0)
    call = make_call(2, cost=0.25, parentObservationId=server_side["id"])
    failed = make_row(3, type="TOOL", name="search", latency=4.0, level="ERROR", traceId="trace-2")
    other = make_row(4, type="TOOL", name="add", latency=None)
    frame = frame_of([outer, server_side, call, failed, other])
    found = tool_summary(frame).set_index("tool_name")
    assert found.loc["search"].tolist() == [2, 1, 0.5, 2, 3.0, 3.9, 6.0, 0.25]
    assert found.loc["add"].fillna(-1).tolist() == [1, 0, 0.0, 1, -1, -1, -1, -1]
    calls = frame[frame["name"].isin(["search", "add"]) & (frame.index != 1)].drop(
        columns=["type", "cost_usd"]
    )
    assert tool_summary(calls)["call_count"].tolist() == [2, 1]


def test_savings_are_the_price_without_a_cache_less_what_was_paid(frame_of, make_call) -> None:
    """By the server's prices, else by the parts of the call; unknown ones are counted, hits are estimated."""
    usage = {"usageDetails": {"input": 200, "input_cached_tokens": 800, "output": 100, "total": 1100}}
    sums = {"inputUsage": 1000, "outputUsage": 100, "totalUsage": 1100}
    price = {"inputPrice": "0.000002", "outputPrice": "0.00001"}
    paid = {"cost": 200 * 2e-6 + 800 * 5e-7 + 100 * 1e-5}
    parts = {"input": 200 * 2e-6, "input_cached_tokens": 800 * 5e-7, "output": 1e-3, "total": paid["cost"]}
    rows = [
        make_call(0, **paid, model="by price", **usage, **sums, **price),
        make_call(1, **paid, model="by parts", **usage, **sums, costDetails=parts, inputCost=8e-4),
        make_call(2, **paid, model="unknown", **usage, **sums),
        make_call(3, cost=0.0, model="unknown", usageDetails={}, metadata={"cache_hit": True}),
        make_call(4, cost=0.01, model="uncached", **price),
    ]
    found = cache_savings(frame_of(rows)).set_index("model")
    assert found.loc[["by price", "by parts"], "prompt_saved_usd"].tolist() == pytest.approx(
        [800 * 1.5e-6] * 2
    )
    assert found.loc["by price", "cached_share"] == 0.8
    assert found["unknown_count"].to_dict() == {"by price": 0, "by parts": 0, "unknown": 1, "uncached": 0}
    assert found.loc["unknown", ["call_count", "hit_count"]].tolist() == [2, 1]
    assert found.loc["unknown", "hit_saved_usd"] == pytest.approx(paid["cost"])
    assert pd.isna(found.loc["unknown", "prompt_saved_usd"])
    assert pd.isna(found.loc["uncached", "prompt_saved_usd"])


@given(st.lists(st.integers(-50, 50).map(float), min_size=8, max_size=30), st.sampled_from([2.0, 3.5]))
@settings(max_examples=30, deadline=None)
def test_outliers_are_those_of_an_independent_rule(values, threshold) -> None:
    """The distance is the one that scipy's median absolute deviation gives."""
    frame = pd.DataFrame({"latency_s": values, "name": [f"n{n}" for n in range(len(values))]})
    unit = stats.median_abs_deviation(values, scale="normal")
    if unit == 0:
        unit = np.mean(np.abs(np.array(values) - np.median(values))) * math.sqrt(math.pi / 2)
    z = (np.array(values) - np.median(values)) / unit if unit else np.zeros(len(values))
    found = anomalies(frame, by=None, threshold=threshold).set_index("name")
    expected = {f"n{n}": value for n, value in enumerate(z) if abs(value) > threshold}
    assert found["robust_z"].to_dict() == pytest.approx(expected)
    assert found["robust_z"].abs().is_monotonic_decreasing


def test_outliers_are_judged_within_their_model(frame_of, make_call) -> None:
    """What is usual for a slow model is not for a fast one; small groups are left out."""
    calls = [make_call(n, cost=None, model="fast", latency=1.0 + n / 100) for n in range(10)]
    calls += [make_call(n, cost=None, model="slow", latency=30.0 + n / 10) for n in range(10, 20)]
    calls += [make_call(20, cost=None, model="fast", latency=30.0)]
    calls += [make_call(n, cost=None, model="rare", latency=10.0**n) for n in range(-3, 4)]
    frame = frame_of(calls)
    found = anomalies(frame, ["latency_s"])
    assert found[["model", "value", "group_count", "observation_id"]].to_numpy().tolist() == [
        ["fast", 30.0, 11, f"{20:016x}"]
    ]
    assert anomalies(frame, ["latency_s"], scale="log")["value"].tolist() == [30.0]
    assert anomalies(frame, ["latency_s"], min_count=99).empty
    assert list(anomalies(frame, by=["name", "session"]).columns).count("name") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "cubic"}, "scale is 'cubic'"),
        ({"threshold": 0}, "threshold is 0"),
        ({"by": "x"}, "group by"),
    ],
)
def test_outliers_explain_what_cannot_be(arguments, message) -> None:
    """A scale, threshold or group that does not exist is named."""
    with pytest.raises(ConfigError, match=message):
        anomalies(pd.DataFrame({"latency_s": [1.0]}), **arguments)


def _daily(frame_of, make_call, costs: list[float]) -> pd.DataFrame:
    """Return a frame with a call per day, and one of today, which is not over."""
    begins = [(_BEGIN + timedelta(days=n)).isoformat() for n in range(len(costs) + 1)]
    calls = [make_call(n, cost=cost, startTime=begins[n]) for n, cost in enumerate([*costs, 99.0]) if cost]
    return frame_of(calls)


def test_a_forecast_expects_days_like_those_before(frame_of, make_call) -> None:
    """The mean of whole days, idle ones included, goes on from today, with an interval around it."""
    costs = [1.0, 0.0, 5.0, 2.0, 0.0, 4.0, 3.0, 1.0, 2.0, 2.0, 1.0, 4.0, 1.0, 2.0, 2.0]
    frame = _daily(frame_of, make_call, costs)
    found = forecast_cost(frame, 20, budget_usd=40.0)
    assert found["day"].iloc[0] == pd.Timestamp(_BEGIN.date(), tz="UTC") + pd.Timedelta(days=len(costs))
    assert found["cost_usd"].tolist() == pytest.approx([2.0 * n for n in range(1, 21)])
    assert (found["cost_low_usd"] < found["cost_usd"]).all()
    assert (found["cost_high_usd"] > found["cost_usd"]).all()
    assert found["over_budget_share"].is_monotonic_increasing
    assert found["over_budget_share"].iloc[-1] == pytest.approx(0.5, abs=0.05)
    assert found.attrs["interval"] == "gamma sums"
    assert forecast_cost(frame, 3)["over_budget_share"].isna().all()


def test_the_interval_of_days_that_hardly_lean_is_that_of_normal_theory() -> None:
    """Gamma-distributed days with a small spread are nearly normal, with a variance from as many days."""
    costs = np.array(
        [10.0, 9.2, 10.9, 9.5, 10.1, 11.0, 9.0, 10.3, 9.9, 9.4, 10.8, 10.4, 9.1, 10.6, 9.8, 10.0]
    )
    found = predict_days(costs, 20)
    n, m = 20, len(costs)
    spread = math.sqrt(np.var(costs, ddof=1) * (n + n**2 / m))
    expected = stats.t.interval(0.9, m - 1, costs.mean() * n, spread)
    assert (found.low[-1], found.high[-1]) == pytest.approx(expected, rel=0.005)


def test_the_ends_of_a_forecast_agree_with_its_probabilities() -> None:
    """A budget at the upper end of a 90 % interval is exceeded in 5 %, one at the lower end in 95 %."""
    costs = np.random.default_rng(4).lognormal(0, 0.8, 30)
    found = predict_days(costs, 30)
    for budget, share in ((found.low[-1], 0.95), (found.high[-1], 0.05)):
        over = predict_days(costs, 30, budget_usd=budget).over_budget_share[-1]
        assert over == pytest.approx(share)


def test_a_forecast_keeps_the_week(frame_of, make_call) -> None:
    """Days of the week that differ have a mean each, and weeks that are all alike leave nothing uncertain."""
    frame = _daily(frame_of, make_call, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 4)
    found = forecast_cost(frame, 7)
    assert found["cost_usd"].tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0])
    assert found["cost_low_usd"].tolist() == pytest.approx(found["cost_high_usd"].tolist())


@pytest.mark.parametrize(("kind", "day_count"), coverage.FORECASTS)
def test_forecasts_hold_the_true_cost_as_often_as_they_say(kind: str, day_count: int) -> None:
    """Of 90 % intervals 85 to 95 % hold the cost of the coming 30 days, as the benchmark measures."""
    share, _ = coverage.forecast_coverage(kind, day_count, simulation_count=600)
    # Three standard errors of 600 simulations beside the bounds.
    assert 0.85 - 0.04 <= share <= 0.95 + 0.03


def test_a_forecast_has_no_interval_where_days_do_not_tell(frame_of, make_call) -> None:
    """Below two weeks, and where costs wander or grow, the ends are missing and it says why."""
    steady = _daily(frame_of, make_call, [1.0, 3.0] * 6)
    rising = _daily(frame_of, make_call, [1.05**n for n in range(40)])
    for frame, reason in ((steady, "fewer than 14 whole days"), (rising, "wanders or has a trend")):
        with pytest.warns(UserWarning, match=reason):
            found = forecast_cost(frame, 5, budget_usd=1.0)
        assert found[["cost_low_usd", "cost_high_usd", "over_budget_share"]].isna().all(axis=None)
        assert found["cost_usd"].notna().all()
        assert reason in found.attrs["interval"]


def test_a_forecast_says_what_it_lacks(frame_of, make_call) -> None:
    """One day is too little, `until` may end it, and other arguments are checked."""
    day = frame_of([make_call(0, cost=1.0)])
    for frame in (day, frame_of([])):
        with pytest.raises(ConfigError, match="at least two whole days"):
            forecast_cost(frame)
    with pytest.warns(UserWarning, match="fewer than 14"):
        assert forecast_cost(day, 1, until="2026-11-22T00:00Z")["cost_usd"].tolist() == [0.5]
    with pytest.raises(ConfigError, match="days is 0"):
        forecast_cost(day, 0)
    with pytest.raises(ConfigError, match="confidence is 90"):
        forecast_cost(day, confidence=90)


def test_costs_by_tag_count_in_each_tag(frame_of, make_call) -> None:
    """A call with two tags is in both groups, one without is in none."""
    calls = [
        make_call(0, cost=0.5, tags=["a", "b"]),
        make_call(1, cost=0.25, tags=["b"]),
        make_call(2, cost=1, tags=[]),
    ]
    found = cost_by(frame_of(calls), ["tag", "model"])
    assert found[["tag", "cost_usd"]].fillna("-").to_numpy().tolist() == [["-", 1.0], ["b", 0.75], ["a", 0.5]]


_ANALYSES = {
    "critical_path": critical_path,
    "error_summary": error_summary,
    "tool_summary": tool_summary,
    "cache_savings": cache_savings,
    "anomalies": anomalies,
}


@pytest.mark.parametrize("name", _ANALYSES)
def test_breakdowns_are_pure_and_keep_their_dtypes(frame_of, make_row, make_call, name) -> None:
    """Nothing in gives the columns and dtypes of something in, and the frame stays as it was."""
    rows = [make_row(0, type="TOOL", level="ERROR", statusMessage="no"), make_call(1, cost=0.5)]
    frame = frame_of(
        rows + [make_call(n, cost=9.0**n, parentObservationId=f"{0:016x}") for n in range(2, 12)]
    )
    before = frame.copy(deep=True)
    full, empty = _ANALYSES[name](frame), _ANALYSES[name](frame_of([]))
    assert len(full)
    assert empty.empty
    assert empty.dtypes.equals(full.dtypes)
    assert list(full.columns)[-len(RESULTS[name]) :] == [column.name for column in RESULTS[name]]
    pd.testing.assert_frame_equal(frame, before)
    shuffled = frame.iloc[::-1].set_axis([7] * len(frame))
    assert len(_ANALYSES[name](shuffled)) == len(full)

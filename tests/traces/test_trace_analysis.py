"""What counts once, how costs are grouped, and the formulas of the latency summary."""

from __future__ import annotations

import pandas as pd
import pytest

from research_kit.errors import ConfigError
from research_kit.traces import cost_by, latency_summary
from research_kit.traces.counting import count_once
from research_kit.traces.rollup import roll_up_messages, roll_up_sessions, roll_up_traces
from research_kit.traces.schema import MESSAGES, SESSIONS, TRACES

_GROUPS = ["model", "user", "session", "trace", "name", "type", "environment", "tool", "cell", "day"]


def _inside(number: int) -> dict[str, str]:
    return {"parentObservationId": f"{number:016x}"}


def test_a_parent_that_repeats_the_cost_of_its_call_is_not_added(frame_of, make_row, make_call) -> None:
    """Cost and tokens of a wrapper generation and of an agent are those of the call inside, once."""
    agent = make_row(0, type="AGENT", costDetails={"total": 0.5}, totalCost=0.5)
    wrapper = make_call(1, cost=0.5, **_inside(0))
    call = make_call(2, cost=0.5, **_inside(1))
    frame = frame_of([agent, wrapper, call])
    (costs,) = cost_by(frame, "session").to_dict("records")
    assert costs == {
        "session_id": "session-1", "cost_usd": 0.5, "input_tokens": 100, "output_tokens": 10,
        "call_count": 1, "unpriced_count": 0,
    }  # fmt: skip
    assert roll_up_sessions(frame)["cost_usd"].tolist() == [0.5]


def test_a_cost_beside_the_calls_counts(frame_of, make_row, make_call) -> None:
    """A tool with a price of its own is added to the calls beside it."""
    tool = make_row(1, type="TOOL", costDetails={"total": 0.25}, totalCost=0.25, **_inside(0))
    frame = frame_of([make_row(0, type="AGENT"), tool, make_call(2, cost=0.5, **_inside(0))])
    assert cost_by(frame, "session")["cost_usd"].tolist() == [0.75]
    assert cost_by(frame, "tool")["cost_usd"].tolist() == [0.5, 0.25]


def test_sums_say_how_many_costs_are_missing(frame_of, make_call) -> None:
    """An unknown cost is missing in the sum and counted; a sum of nothing known is NA."""
    calls = [make_call(0, cost=0.5), make_call(1, cost=None), make_call(2, cost=None, model="my-llama")]
    costs = cost_by(frame_of(calls), "model").set_index("model")
    assert costs["unpriced_count"].to_dict() == {"gpt-4o-mini": 1, "my-llama": 1}
    assert costs.loc["gpt-4o-mini", "cost_usd"] == 0.5
    assert pd.isna(costs.loc["my-llama", "cost_usd"])


def test_a_call_whose_cost_its_wrapper_carries_is_priced(frame_of, make_row, make_call) -> None:
    """A call without a price inside an observation that has one is not counted as unpriced."""
    agent = make_row(0, type="AGENT", costDetails={"total": 0.5}, totalCost=0.5)
    frame = frame_of([agent, make_call(1, cost=None, **_inside(0))])
    assert cost_by(frame, "session")[["cost_usd", "unpriced_count"]].to_numpy().tolist() == [[0.5, 0]]


def test_a_tool_call_of_several_parts_counts_once(frame_of, make_row) -> None:
    """A tool, the MCP client span in it and the server's tool are one call; an agent's is another."""
    rows = [
        make_row(0, type="TOOL", name="ask"),
        make_row(1, type="SPAN", name="MCP send tools/call ask", **_inside(0)),
        make_row(2, type="TOOL", name="ask", **_inside(1)),
        make_row(3, type="AGENT", **_inside(2)),
        make_row(4, type="TOOL", name="inner", **_inside(3)),
    ]
    frame = frame_of(rows)
    assert count_once(frame)["is_tool_call"].tolist() == [True, False, False, False, True]
    assert roll_up_traces(frame)["tool_call_count"].tolist() == [2]


def test_costs_are_grouped_by_the_tool_call_around_them(frame_of, make_row, make_call) -> None:
    """The cost of a call made inside a tool belongs to that tool; others belong to none."""
    tool = make_row(0, type="TOOL", name="summarise")
    frame = frame_of([tool, make_call(1, cost=0.5, **_inside(0)), make_call(2, cost=0.25)])
    costs = cost_by(frame, "tool")
    assert costs["tool_name"].fillna("-").tolist() == ["summarise", "-"]
    assert costs["cost_usd"].tolist() == [0.5, 0.25]


def test_costs_by_cell_add_up_repeated_executions(frame_of, make_call) -> None:
    """A cell that ran twice is one group; without a cell id the execution count stands for it."""
    cells = [
        {"cell_id": "a1", "execution_count": 1},
        {"cell_id": "a1", "execution_count": 2},
        {"execution_count": 3},
    ]
    frame = frame_of([make_call(n, cost=0.5, metadata=cell) for n, cell in enumerate(cells)])
    assert cost_by(frame, "cell")[["cell_id", "cost_usd"]].to_numpy().tolist() == [["a1", 1.0], ["[3]", 0.5]]


def test_costs_by_several_groups_and_day(frame_of, make_call) -> None:
    """Groups can be combined; days are days in UTC."""
    late = {"startTime": "2026-11-20T23:59:59.999Z"}
    frame = frame_of([make_call(0, cost=0.5, **late), make_call(1, cost=0.25, userId="bob")])
    costs = cost_by(frame, ["day", "user"])
    assert costs["day"].unique().tolist() == [pd.Timestamp("2026-11-20", tz="UTC")]
    assert costs["user_id"].tolist() == ["alice", "bob"]


@pytest.mark.parametrize("by", _GROUPS)
def test_analysis_of_nothing_keeps_columns_and_dtypes(frame_of, make_call, by) -> None:
    """An empty frame gives an empty result with the dtypes of a full one."""
    empty, full = frame_of([]), frame_of([make_call(0, cost=0.5)])
    for function in (cost_by, latency_summary):
        assert function(empty, by).empty
        assert function(empty, by).dtypes.equals(function(full, by).dtypes)
    assert latency_summary(empty).dtypes.equals(latency_summary(full).dtypes)


@pytest.mark.parametrize(
    ("roll_up", "schema"),
    [(roll_up_traces, TRACES), (roll_up_sessions, SESSIONS), (roll_up_messages, MESSAGES)],
)
def test_summaries_of_nothing_keep_columns_and_dtypes(frame_of, make_row, roll_up, schema) -> None:
    """Summaries have the dtypes of their schema with and without rows."""
    for frame in (frame_of([]), frame_of([make_row(0)]), frame_of([make_row(0, name="chat", sessionId="")])):
        assert [str(dtype) for dtype in roll_up(frame).dtypes] == [column.dtype for column in schema]


def test_analysis_does_not_change_its_input(frame_of, make_row, make_call) -> None:
    """Functions are pure: the frame that went in is the same afterwards."""
    frame = frame_of([make_row(0, name="chat"), make_call(1, cost=0.5, **_inside(0))])
    before = frame.copy(deep=True)
    for by in _GROUPS:
        cost_by(frame, by)
        latency_summary(frame, by)
    for roll_up in (roll_up_traces, roll_up_sessions, roll_up_messages):
        roll_up(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_cost_by_works_on_a_frame_with_any_index(frame_of, make_row, make_call) -> None:
    """A filtered and shuffled frame gives the same sums: positions, not labels, are used inside."""
    rows = [make_row(0), make_call(1, cost=0.5, **_inside(0)), make_call(2, cost=0.5, **_inside(1))]
    shuffled = frame_of(rows).iloc[[2, 0, 1]].set_axis([7, 7, 3])
    assert cost_by(shuffled, "session")["cost_usd"].tolist() == [0.5]
    assert cost_by(shuffled, "tool")["call_count"].tolist() == [1]


def test_latency_summary_follows_its_formulas(frame_of, make_call) -> None:
    """Percentiles interpolate linearly; the rate is output tokens by seconds of rows that have both."""
    latencies = [1.0, 2.0, 3.0, 4.0, None]
    rows = [
        make_call(n, cost=None, tokens=(1, 30), latency=latency, timeToFirstToken=0.5 if n == 0 else None)
        for n, latency in enumerate(latencies)
    ]
    (summary,) = latency_summary(frame_of(rows)).to_dict("records")
    expected = {
        "count": 4,
        "latency_mean_s": 2.5,
        "latency_p50_s": 2.5,
        "latency_p90_s": 3.7,
        "latency_p95_s": 3.85,
        "latency_p99_s": 3.97,
        "time_to_first_token_p50_s": 0.5,
        "time_to_first_token_p95_s": 0.5,
        "output_tokens_per_s": 12.0,
    }
    assert summary == pytest.approx(expected)


def test_latency_summary_of_frames_without_tokens(frame_of, make_row) -> None:
    """A frame that has latencies only, as of traces, has no first token and no rate."""
    (summary,) = latency_summary(roll_up_traces(frame_of([make_row(0)]))).to_dict("records")
    assert (summary["count"], summary["latency_p50_s"]) == (1, 0.5)
    assert pd.isna(summary["time_to_first_token_p50_s"])
    assert pd.isna(summary["output_tokens_per_s"])


@pytest.mark.parametrize("by", ["colour", "", [], ["model", "colour"]])
def test_an_unknown_group_is_refused_with_the_known_ones(frame_of, by) -> None:
    """A group that does not exist names those that do."""
    for function in (cost_by, latency_summary):
        with pytest.raises(ConfigError, match=r"Cannot group by .*model, user, session"):
            function(frame_of([]), by)


def test_a_frame_of_something_else_is_refused() -> None:
    """A frame without the needed columns names the first that is missing and where to get it."""
    with pytest.raises(ConfigError, match=r"cost_by needs the column 'trace_id'.*observations_df\(\)"):
        cost_by(pd.DataFrame({"a": [1]}))
    with pytest.raises(ConfigError, match="latency_summary needs the column 'model'"):
        latency_summary(pd.DataFrame({"latency_s": [1.0]}), "model")


def test_parents_in_a_circle_are_counted_once(frame_of, make_call) -> None:
    """Broken traces whose parents form a circle neither hang nor lose their cost."""
    frame = frame_of([make_call(0, cost=0.5, **_inside(1)), make_call(1, cost=0.5, **_inside(0))])
    itself = frame_of([make_call(0, cost=0.25, **_inside(0))])
    assert cost_by(frame, "tool")["cost_usd"].tolist() == [0.5]
    assert cost_by(itself, "tool")["cost_usd"].tolist() == [0.25]

"""Plots: complete, honest about what they leave out, and visible in a notebook without pyplot."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from research_kit.errors import ConfigError
from research_kit.traces import plot_comparison, plot_cost, plot_latency, plot_timeline, plot_tokens

_PNG = b"\x89PNG\r\n"


@pytest.fixture
def frame(frame_of, make_row, make_call) -> pd.DataFrame:
    inside = {"parentObservationId": f"{0:016x}"}
    rows = [
        make_row(0, type="AGENT", name="costs $5 or $_{"),
        make_call(1, cost=0.1, model="$_{ and $", **inside),
    ]
    return frame_of(
        [*rows, make_row(2, type="TOOL", level="ERROR", latency=None, **inside), make_row(3, traceId="t2")]
    )


def plot_tokens_by_model(frame: pd.DataFrame) -> Any:
    return plot_tokens(frame, "model")


def plot_with_itself(frame: pd.DataFrame) -> Any:
    return plot_comparison(frame, frame)


@pytest.mark.parametrize(
    "plot", [plot_timeline, plot_tokens, plot_latency, plot_cost, plot_tokens_by_model, plot_with_itself]
)
def test_plots_show_themselves_in_a_notebook(frame, plot) -> None:
    """Every figure renders as PNG by itself, of full and of empty frames."""
    for some in (frame, frame.head(1), frame.head(0)):
        assert plot(some)._repr_png_()[0].startswith(_PNG)


def test_timeline_has_a_bar_per_observation_and_says_what_it_leaves_out(frame) -> None:
    """Each observation is a bar that begins where it began in its trace; the title names what is missing."""
    (axes,) = plot_timeline(frame).axes
    assert [bar.get_x() for bar in axes.patches] == [0.0, 1.0, 2.0, 0.0]
    assert [label.get_text().rstrip() for label in axes.get_yticklabels()][1] == "  step-1"
    assert axes.get_title(loc="left") == "4 observations"
    assert (
        plot_timeline(frame, max_rows=3).axes[0].get_title(loc="left")
        == "3 observations of 4, the first ones"
    )


def test_tokens_and_latencies_say_how_many_rows_have_none(frame) -> None:
    """Rows without a value are not drawn as zero; the title counts them."""
    assert plot_tokens(frame).axes[0].get_title(loc="left") == "110 tokens, 3 without known usage left out"
    assert "1 without known latency left out" in plot_latency(frame).axes[0].get_title(loc="left")


def test_costs_add_up_over_time(frame_of, make_call, make_row) -> None:
    """A layer per group ends at its sum; a wrapper's cost is not added again, unknown ones are told."""
    frame = frame_of(
        [
            make_row(0, costDetails={"total": 3.0}),
            make_call(1, cost=1.0, parentObservationId=f"{0:016x}"),
            make_call(2, cost=2.0, parentObservationId=f"{0:016x}", model="large"),
            make_call(3, cost=None, traceId="other"),
        ]
    )
    (axes,) = plot_cost(frame).axes
    assert axes.get_title(loc="left") == "$3.00 by model, 1 call of unknown cost left out"
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in axes.collections]
    assert tops == [2.0, 3.0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (UTC)", "US dollars, added up")
    assert plot_tokens(frame, "model").axes[0].get_title(loc="left") == "330 tokens by model"


def test_sessions_are_compared_turn_by_turn(frame_of, make_call) -> None:
    """Every turn is a point, medians are marked, and what `compare` pairs is joined."""
    numbered = [{"metadata": {"message_number": number}, "traceId": f"t{number}"} for number in range(3)]
    a, b = (frame_of([make_call(n, cost=0.1, **numbered[n]) for n in range(count)]) for count in (3, 2))
    latency, tokens, cost = plot_comparison(a, b, names=("a", "b"), on="message_number").axes
    assert [label.get_text() for label in latency.get_yticklabels()] == ["a", "b"]
    assert [len(points.get_offsets()) for points in tokens.collections] == [3, 2]
    assert len(cost.lines) == 2 + 2  # two pairs, two medians
    assert len(plot_comparison(a, b).axes[2].lines) == 2  # without questions nothing is known to be the same
    with pytest.raises(ConfigError, match="Give two names"):
        plot_comparison(a, b, names=("a",))


def test_plots_refuse_frames_without_their_columns(frame) -> None:
    """A frame of something else is refused with the column that is missing."""
    with pytest.raises(ConfigError, match="plot_timeline needs the column 'trace_id'"):
        plot_timeline(frame[["name"]])
    with pytest.raises(ConfigError, match="max_rows is 0"):
        plot_timeline(frame, max_rows=0)
    with pytest.raises(ConfigError, match="Cannot group by 'colour'"):
        plot_latency(frame, "colour")


def test_plots_leave_pyplot_alone() -> None:
    """Drawing loads no pyplot, so no figure is kept alive or shown twice."""
    code = (
        "import sys; from research_kit.traces.frames import build_frame\n"
        "from research_kit.traces.schema import OBSERVATIONS; from research_kit.traces import plot_timeline\n"
        "plot_timeline(build_frame(OBSERVATIONS, []))._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_plots_without_matplotlib_say_how_to_install_it() -> None:
    """Without the extra the error holds the command that installs it."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from research_kit.traces import plot_tokens; from research_kit.errors import MissingExtraError\n"
        "try: plot_tokens(None)\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert "pip install 'jupyter-research-kit[plots]'" in done.stdout

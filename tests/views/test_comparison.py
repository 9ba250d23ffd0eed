"""The report of a comparison: what differs is said, what may be chance is not called a difference."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from research_kit._words import UNKNOWN
from research_kit.errors import ConfigError
from research_kit.views import show_comparison


def turns(session_id: str, latencies_s: list[float], costs_usd: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "session_id": pd.array([session_id] * len(latencies_s), dtype="string"),
            "message_number": range(1, len(latencies_s) + 1),
            "latency_s": latencies_s,
            "cost_usd": pd.array(costs_usd, dtype="float64"),
            "total_tokens": pd.array([100 + number for number in range(len(latencies_s))], dtype="Int64"),
        }
    )


A = turns("before", [2.0, 2.2, 1.9, 2.1, 2.0, 2.3, 1.8, 2.0], [0.01] * 8)
B = turns("after", [1.0, 1.1, 0.9, 1.2, 1.0, 1.1, 0.8, 1.0], [0.01, 0.02, 0.0, 0.01, 0.02, 0.0, 0.015, 0.005])


def test_a_difference_is_one_when_its_interval_leaves_out_zero() -> None:
    """The sentence names what differs, every metric has a line, intervals are drawn around zero."""
    view = show_comparison(A, B, on="message_number")
    title, finding, _, heads, *lines = str(view).split("\n")
    assert title == "before → after (8 pairs)"
    assert finding == "1 of 3 metrics differ: latency_s lower by 50.3 %."
    assert heads.split()[:3] == ["metric", "before", "after"]
    assert [line.split()[0] for line in lines[:3]] == ["latency_s", "cost_usd", "total_tokens"]
    html = view.to_html()
    assert re.findall(r'<tr class="(rk-[a-z]+)"', html) == ["rk-better", "rk-unsure", "rk-unsure"]
    assert show_comparison(B, A, on="message_number").to_html().count('class="rk-worse"') == 1
    left, width = map(float, re.findall(r"left: ([\d.]+)%; width: ([\d.]+)%", html)[0])
    assert left + width < 50


def test_what_compare_found_can_be_shown_by_itself() -> None:
    """Names are given by the caller, unknown values are dashes, and other input is refused."""
    found = show_comparison(A, B, ["latency_s"]).frame
    assert str(show_comparison(found, names=("x", "y"))).startswith("x → y (8 and 8 rows)")
    unknown = found.assign(difference_low=float("nan"), difference_high=float("nan"), hedges_g=float("nan"))
    assert UNKNOWN in show_comparison(unknown).to_html()
    assert "No metric differs for sure." in str(show_comparison(unknown))
    for arguments, message in (
        (("session-a",), "was given 'session-a' alone"),
        ((A,), "show_comparison needs the column 'metric'"),
    ):
        with pytest.raises(ConfigError, match=message):
            show_comparison(*arguments)
    with pytest.raises(ConfigError, match="Give two names"):
        show_comparison(A, B, names=("one",))  # type: ignore[arg-type]

"""Numbers and transcripts as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from research_kit._words import UNKNOWN
from research_kit.chat.events import ToolFinished, ToolStarted, Usage
from research_kit.chat.ui_format import usage_texts
from research_kit.chat.ui_messages import ChatMessage, ToolCall, fold_event, message_to_wire
from research_kit.chat.ui_static import render_static

STATUS: dict[str, Any] = {
    "session_id": "jupyter-<1>",
    "message_count": 1,
    "texts": {"tokens": "1 in · 2 out", "cost": UNKNOWN},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, UNKNOWN),
        (Usage(), UNKNOWN),
        (Usage(unpriced_count=2), UNKNOWN),
        (Usage(cost_usd=0.0), "$0"),
        (Usage(cost_usd=0.0, unpriced_count=1), UNKNOWN),
        (Usage(cost_usd=0.00001), "$0.00001"),
        (Usage(cost_usd=0.00034), "$0.00034"),
        (Usage(cost_usd=0.0421), "$0.0421"),
        (Usage(cost_usd=1234.5), "$1,234.50"),
        (Usage(cost_usd=0.5, unpriced_count=1), "≥ $0.50"),
    ],
)
def test_cost_is_honest(usage: Usage | None, expected: str) -> None:
    """An unknown cost is a dash, never zero; a partly known one says that it is a lower bound."""
    assert usage_texts(usage)["cost"] == expected


def test_usage_texts_say_how_many_prices_are_missing() -> None:
    """The reader learns why a cost is not exact."""
    assert usage_texts(Usage(unpriced_count=1))["cost_note"] == "1 call has no known price."
    assert usage_texts(Usage(cost_usd=1.0, unpriced_count=3))["cost_note"] == "3 calls have no known price."


def test_fold_event_shortens_long_tool_results() -> None:
    """A tool that answers with megabytes does not send them to the browser."""
    answer = ChatMessage(message_id="a1", role="assistant", state="running")
    answer = fold_event(answer, ToolStarted(call_id="c1", name="read"))
    answer = fold_event(
        answer,
        ToolFinished(call_id="c1", name="read", result="x" * 1_000_000, is_error=False, latency_s=0.1),
    )
    result = answer.tools[0].result or ""
    assert result.startswith("xxx")
    assert result.endswith("980,000 more characters; the trace has all of them.")
    assert len(result) < 20_100


def test_render_static_escapes_everything_but_answers() -> None:
    """Text of people and tools is shown as text in a saved notebook."""
    tool = ToolCall(call_id="c1", name="<b>", arguments="<i>", result="<u>", is_error=True, latency_s=0.1)
    transcript = [
        message_to_wire(
            ChatMessage(message_id="q1", role="user", text="<script>", state="sent"), trace_url=None
        ),
        message_to_wire(
            ChatMessage(
                message_id="a1", role="assistant", text="**x**", state="failed", error="<s>", tools=(tool,)
            ),
            trace_url=None,
        ),
    ]
    html = render_static(transcript, STATUS)
    for markup in ("<script>", "<b>", "<i>", "<u>", "<s>", "<1>"):
        assert markup not in html
    assert "<strong>x</strong>" in html
    assert "&lt;b&gt; · 100 ms · failed" in html
    assert "Failed." in html


def test_render_static_shows_an_unfinished_answer() -> None:
    """A notebook that was saved during an answer shows what had arrived, and says so."""
    answer = ChatMessage(message_id="a1", role="assistant", text="so <far>", state="running")
    html = render_static([message_to_wire(answer, trace_url=None)], STATUS)
    assert "so &lt;far&gt;" in html
    assert "still being written" in html

"""A session's budget warns, refuses, and ends a message between two calls."""

from __future__ import annotations

import math

import dspy
import pytest
from conversations import Simple, answer, conversation_of
from langfuse import get_client
from scripted_lm import ScriptedLM

import research_kit as rk
from research_kit.chat.events import MessageFailed, Notice, Usage
from research_kit.chat.spending import Budget
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.store import StoreAddress


def test_budget_warns_and_then_refuses(store: StoreAddress, server: ScriptedLM) -> None:
    """Calls of cells count; near the limit a message says so, and beyond it none is sent."""
    server.script(answer("one"), answer("two"), answer("three"))
    conversation = conversation_of(server)
    lm = conversation.send("first").result().usage
    tokens = lm.input_tokens + lm.output_tokens
    rk.budget(tokens=int(tokens * 2.1))
    events = list(conversation.send("second"))
    assert any(isinstance(event, Notice) and "budget" in event.text for event in events)
    rk.budget(tokens=tokens)
    with pytest.raises(ResearchKitError, match=r"budget of this session is used.*Raise it"):
        conversation.send("third")
    rk.budget(tokens=math.inf)
    assert conversation.ask("third") == "three"


def test_budget_ends_a_message_between_two_calls(store: StoreAddress, server: ScriptedLM) -> None:
    """A program of several calls stops before the one that the budget does not cover."""
    server.script(answer("one"))

    class Twice(Simple):
        async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
            await self.predict.acall(question=question, history=history)
            return await self.predict.acall(question="again", history=history)

    rk.budget(tokens=10)
    failed = conversation_of(server, Twice()).send("sky?").wait()
    assert isinstance(failed, MessageFailed)
    assert "budget of this session is used" in failed.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", [0, -1.5])
def test_budget_refuses_limits_that_are_none(value: float) -> None:
    """A limit of nothing is a mistake that is explained."""
    with pytest.raises(ConfigError, match="Give a number above 0"):
        rk.budget(usd=value)


def test_budget_counts_a_call_once_however_often_it_is_asked(store: StoreAddress) -> None:
    """Calls of cells count from the first question on, a call that was open then with them."""
    with rk.trace_span("before"):
        pass  # tracing is on, and nobody counts yet
    call = get_client().start_observation(
        name="call",
        as_type="generation",
        model="m",
        usage_details={"input": 10},
        cost_details={"total": 0.25},
    )
    rk.budget()
    assert rk.budget().used == Usage()
    call.end()
    assert rk.budget().used == Usage(input_tokens=10, cost_usd=0.25)


def test_budget_says_how_it_stands() -> None:
    """A small cost is not rounded to nothing, and a cost that is not known is not zero."""
    used = Usage(input_tokens=1000, output_tokens=200, cost_usd=0.00002)
    assert str(Budget(session_id="s", used=used, limit_usd=0.5)) == "1,200 tokens, $0.00002 of $0.50"
    unknown = Budget(session_id="s", used=Usage(unpriced_count=2), limit_tokens=5000)
    assert str(unknown) == "0 of 5,000 tokens, unknown cost, 2 calls of unknown cost"

"""Tools that may change something ask first: once, for the session, or never."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dspy
import pytest
from conversations import DEADLINE_S, Simple, conversation_of
from scripted_lm import ScriptedLM, adapter_reply

import research_kit as rk
from research_kit.agent import ToolRequest
from research_kit.chat.approving import Approvals
from research_kit.chat.engine import Conversation
from research_kit.chat.events import (
    ApprovalNeeded,
    MessageCancelled,
    MessageFinished,
)
from research_kit.errors import ConfigError
from research_kit.store import StoreAddress


def risky(text: str) -> str:
    return f"did {text}"


class AskingTool(Simple):
    """An assistant whose tool asks before it runs."""

    approvals: Any = None
    fingerprint = "1"

    async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
        async def run(text: str) -> str:
            request = ToolRequest(
                server="own", name="risky", arguments={"text": text}, fingerprint=self.fingerprint
            )
            if not await asyncio.to_thread(self.approvals.ask, request):
                return "denied"
            return risky(text)

        tool = dspy.Tool(run, name="risky", arg_types={"text": str})
        return dspy.Prediction(answer=str(await tool.acall(text=question)))


def asking_conversation(server: ScriptedLM, assistant: AskingTool | None = None) -> Conversation:
    assistant = assistant or AskingTool()
    conversation = conversation_of(server, assistant)
    assistant.approvals = conversation.approvals
    conversation.approvals.is_shown = True
    return conversation


def asked(turn: Any, decision: str, conversation: Conversation) -> tuple[int, str]:
    count, answer = 0, ""
    for event in turn:
        if isinstance(event, ApprovalNeeded):
            count += 1
            conversation.decide(event.call_id, decision)
        if isinstance(event, MessageFinished):
            answer = event.answer
    return count, answer


def test_tool_asks_until_it_is_allowed_for_the_session(store: StoreAddress, server: ScriptedLM) -> None:
    """Deny and Allow once hold for one call; Allow for session holds until the session ends."""
    conversation = asking_conversation(server)
    assert asked(conversation.send("a"), "deny", conversation) == (1, "denied")
    assert asked(conversation.send("b"), "once", conversation) == (1, "did b")
    assert asked(conversation.send("c"), "session", conversation) == (1, "did c")
    assert asked(conversation.send("d"), "deny", conversation) == (0, "did d")
    rk.new_session()
    assert asked(conversation.send("e"), "deny", conversation) == (1, "denied")
    with pytest.raises(ConfigError, match="'maybe' is not known"):
        conversation.decide("x", "maybe")


def test_changed_tool_asks_again(store: StoreAddress, server: ScriptedLM) -> None:
    """What was allowed for the session is this tool as it was described; another description asks anew."""
    assistant = AskingTool()
    conversation = asking_conversation(server, assistant)
    assert asked(conversation.send("a"), "session", conversation) == (1, "did a")
    assistant.fingerprint = "2"
    turn = conversation.send("b")
    changes = []
    for event in turn:
        if isinstance(event, ApprovalNeeded):
            changes.append(event.is_changed)
            conversation.decide(event.call_id, "session")
    assert changes == [True]
    assert asked(conversation.send("c"), "deny", conversation) == (0, "did c")


def test_stop_ends_a_message_that_asks(store: StoreAddress, server: ScriptedLM) -> None:
    """While a tool waits for an approval, Stop works, and the tool does not run."""
    conversation = asking_conversation(server)
    turn = conversation.send("a")
    for event in turn:
        if isinstance(event, ApprovalNeeded):
            turn.cancel()
    assert isinstance(turn.wait(), MessageCancelled)


def test_tool_is_denied_when_nobody_is_asked(store: StoreAddress, server: ScriptedLM) -> None:
    """Without a panel the answer is no, unless `approve` says yes."""
    conversation = asking_conversation(server)
    conversation.approvals.is_shown = False
    assert conversation.ask("a") == "denied"
    allowed = Approvals(lambda name, arguments: (name, arguments) == ("risky", {"text": "a"}))
    assert allowed.ask(ToolRequest(server="own", name="risky", arguments={"text": "a"}))


def test_stop_is_heard_during_a_slow_tool(store: StoreAddress, server: ScriptedLM) -> None:
    """A function that blocks does not keep Stop from ending the message."""
    gate, entered = threading.Event(), threading.Event()

    def slow(text: str) -> str:
        entered.set()
        assert gate.wait(DEADLINE_S)
        return text

    server.script(
        adapter_reply(next_thought="I call.", next_tool_name="slow", next_tool_args='{"text": "x"}')
    )
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.base_url, api_key="test", cache=False, num_retries=0)
    turn = Conversation(lm=lm, tools=[slow]).send("go")
    assert entered.wait(DEADLINE_S)
    turn.cancel()
    assert isinstance(turn.wait(), MessageCancelled)
    gate.set()

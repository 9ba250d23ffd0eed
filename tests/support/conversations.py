"""Conversations with a scripted model, and what was traced of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dspy
import httpx
from scripted_lm import Reply, ScriptedLM, adapter_reply

import research_kit as rk
from research_kit.chat.engine import Conversation
from research_kit.store import StoreAddress

DEADLINE_S = 20.0


def answer(text: str, *, pause_before: str | None = None) -> Reply:
    return adapter_reply(pause_before, answer=text)


class Simple(dspy.Module):
    """An assistant with one predictor and, on request, one tool."""

    def __init__(self, tool: dspy.Tool | None = None) -> None:
        super().__init__()
        self.tool = tool
        self.predict = dspy.Predict("question, history: dspy.History -> answer")

    async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
        if self.tool is not None:
            await self.tool.acall(text=question)
        return await self.predict.acall(question=question, history=history)


def conversation_of(
    server: ScriptedLM, assistant: dspy.Module | None = None, *, cache: bool = False, **options: Any
) -> Conversation:
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.base_url, api_key="test", cache=cache, num_retries=0)
    return Conversation(lm=lm, assistant=assistant or Simple(), **options)


def wait_until(condition: Callable[[], bool], state: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.02)


def read_trace(address: StoreAddress, trace_id: str, count: int) -> list[dict[str, Any]]:
    assert rk.flush()
    rows: list[dict[str, Any]] = []

    def is_complete() -> bool:
        nonlocal rows
        reply = httpx.get(
            f"{address.base_url}/api/public/v2/observations",
            params={"traceId": trace_id, "fields": "core,basic,time,io,metadata,usage,trace_context"},
            auth=(address.public_key, address.secret_key),
        )
        rows = reply.raise_for_status().json()["data"]
        return len(rows) >= count

    wait_until(is_complete, lambda: rows)
    return rows

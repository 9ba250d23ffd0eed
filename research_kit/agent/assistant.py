"""The program that answers a message.

Owns the choice between the two programs; the small one has a module of its own. Invariant: every program
takes a question and a history and gives a prediction with the field ``answer``.
"""

from __future__ import annotations

from typing import Any

import dspy
from dspy.streaming import StreamListener

from research_kit.agent.lm import LMChoice
from research_kit.agent.loop import agent_loop
from research_kit.agent.small_assistant import SmallAssistant
from research_kit.agent.text_adapter import AnswerListener

__all__ = ["ToolAssistant", "answer_listener", "build_assistant"]

_MAX_STEPS = 8


class AnswerQuestion(dspy.Signature):
    """Answer the question of a researcher who works in a Jupyter notebook.

    Look at the notebook's variables with the tools instead of guessing; take every number from a tool's
    result.
    """

    conversation: str = dspy.InputField(desc="earlier messages, oldest first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the answer in Markdown, short and complete")


class ToolAssistant(dspy.Module):
    """Answers with `dspy.ReAct`: the model reasons and calls tools until it knows enough.

    Args:
        lm: The language model.
        tools: What it may call.
    """

    def __init__(self, lm: dspy.BaseLM, tools: list[dspy.Tool]) -> None:
        super().__init__()
        self.react = dspy.ReAct(AnswerQuestion, tools=list(tools), max_iters=_MAX_STEPS)
        self.set_lm(lm)

    def forward(self, question: str, history: dspy.History | None = None) -> dspy.Prediction:
        """Answer ``question``; waits for the asynchronous form, so that tools work in any kernel."""
        return agent_loop().run(self.aforward(question, history))

    async def aforward(self, question: str, history: dspy.History | None = None) -> dspy.Prediction:
        """Answer ``question`` in the light of ``history``."""
        prediction: dspy.Prediction = await self.react.acall(
            question=question, conversation=_conversation_text(history)
        )
        return prediction


def build_assistant(choice: LMChoice, tools: list[dspy.Tool]) -> dspy.Module:
    """Return the program that suits the model: `ToolAssistant`, or `SmallAssistant` for the local one.

    Args:
        choice: The chosen language model.
        tools: DSPy tools, as `as_dspy_tools` gives them.
    """
    if choice.is_local:
        return SmallAssistant(choice.lm, tools)
    return ToolAssistant(choice.lm, tools)


def answer_listener(program: Any) -> StreamListener:
    """Return the listener that turns the stream of ``program`` into pieces of its answer.

    Put it into ``dspy.context(send_stream=..., stream_listeners=[listener])`` and give each chunk to
    ``listener.receive``; every `StreamResponse` then carries the next piece in ``chunk``.
    """
    if isinstance(program, SmallAssistant):
        return AnswerListener(program.answer)
    predictors = [
        (name, predictor)
        for name, predictor in program.named_predictors()
        if "answer" in predictor.signature.output_fields
    ]
    name, predictor = predictors[-1]
    return StreamListener("answer", predict=predictor, predict_name=name, allow_reuse=True)


def _conversation_text(history: dspy.History | None) -> str:
    """Return the earlier messages as text; a step of `dspy.ReAct` would drop their answers from a history."""
    messages = [] if history is None else history.messages
    lines = [f"{name}: {value}" for message in messages for name, value in message.items()]
    return "\n".join(lines) or "(this is the first message)"

"""How a question is put to a model that only continues text.

Owns the form of requests to the small local model, and reading its streamed answer; does not choose what is
asked. Invariant: a prompt begins with its fixed part, so that the server evaluates it once.
"""

from __future__ import annotations

from typing import Any

import dspy
from dspy.streaming import StreamListener, StreamResponse
from pydantic_core import from_json

from research_kit.agent.small_tasks import case_text, fixed_text

__all__ = ["AnswerListener", "TextAdapter"]


class TextAdapter(dspy.JSONAdapter):
    """One block of text: the task, worked examples, and the case to continue with a JSON object."""

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the prompt as one user message."""
        names = tuple(signature.input_fields)
        content = fixed_text(signature.instructions, names, demos) + case_text(names, inputs)
        return [{"role": "user", "content": content}]


class AnswerListener(StreamListener):
    """Takes the growing answer out of the JSON that the model writes, whatever adapter is set outside."""

    def __init__(self, predict: dspy.Predict) -> None:
        super().__init__("answer", predict=predict, predict_name="answer", allow_reuse=True)
        self._received = ""
        self._given = ""

    def receive(self, chunk: Any) -> StreamResponse | None:
        """Return what ``chunk`` adds to the answer, or None."""
        choice = chunk.choices[0]
        if choice.delta.content:
            self._received += choice.delta.content
        is_last = choice.finish_reason is not None
        text = self._text()
        added = text[len(self._given) :]
        self._given = text
        if is_last:
            self._received = self._given = ""
        if not added and not is_last:
            return None
        return StreamResponse(self.predict_name, self.signature_field_name, added, is_last_chunk=is_last)

    def finalize(self) -> StreamResponse | None:
        """Return None: nothing is held back."""
        return None

    def _text(self) -> str:
        try:
            parsed = from_json(self._received, allow_partial="trailing-strings")
        except ValueError:
            return self._given
        text = parsed.get(self.signature_field_name, "") if isinstance(parsed, dict) else ""
        return text if isinstance(text, str) and text.startswith(self._given) else self._given

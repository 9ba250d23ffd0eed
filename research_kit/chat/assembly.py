"""Putting together what answers: a language model, tools and the assistant program.

Owns the defaults of a conversation; each part is built by the agent layer.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from research_kit.agent import (
    LMChoice,
    ToolServer,
    agent_loop,
    as_dspy_tools,
    build_assistant,
    build_kernel_server,
    resolve_lm,
)
from research_kit.instrumentation import instrument_dspy

__all__ = ["Assembly", "assemble", "main_namespace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What answers the messages of a conversation."""

    lm: LMChoice
    program: dspy.Module
    get_namespace: Callable[[], Mapping[str, Any]]

    def fresh_program(self, attempt: int) -> dspy.Module:
        """Return the program such that DSPy's cache does not answer with what it answered before."""
        program: dspy.Module = self.program.deepcopy()
        if isinstance(self.lm.lm, dspy.LM):
            for predictor in program.predictors():
                predictor.config = {**predictor.config, "rollout_id": attempt}
        return program


def main_namespace() -> Mapping[str, Any]:
    """Return the variables of the notebook: in a kernel they are those of the main module."""
    return vars(sys.modules["__main__"])


def assemble(
    *,
    lm: Any,
    tools: Sequence[Callable[..., Any] | dspy.Tool],
    assistant: dspy.Module | None,
    get_namespace: Callable[[], Mapping[str, Any]],
    approve: Callable[[str, dict[str, Any]], bool],
) -> Assembly:
    """Choose the language model, connect the tools and build the assistant.

    May take as long as a local model needs to load.

    Raises:
        LMNotFoundError: When no language model can be chosen.
        ConfigError: When the model's name cannot be used.
    """
    choice = resolve_lm(lm)
    if choice.is_local:
        choice.lm.start()
    if assistant is None:
        server = ToolServer("kernel", build_kernel_server(get_namespace))
        own = [tool if isinstance(tool, dspy.Tool) else dspy.Tool(_in_thread(tool)) for tool in tools]
        assistant = build_assistant(choice, [*as_dspy_tools(server, approve=approve), *own])
    instrument_dspy()
    return Assembly(lm=choice, program=assistant, get_namespace=get_namespace)


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` such that the agent's loop does not wait for it: Stop is heard meanwhile."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if agent_loop().is_current_thread():
            return asyncio.to_thread(function, *args, **kwargs)
        return function(*args, **kwargs)

    return call

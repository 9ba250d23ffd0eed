"""Putting together what answers: a language model, tools and the assistant program.

Owns the defaults of a conversation; each part is built by the agent layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from research_kit.agent import (
    LMChoice,
    ToolServer,
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


def main_namespace() -> Mapping[str, Any]:
    """Return the variables of the notebook: in a kernel they are those of the main module."""
    return vars(sys.modules["__main__"])


def assemble(
    *,
    lm: Any,
    tools: Sequence[Callable[..., Any] | dspy.Tool],
    assistant: dspy.Module | None,
    get_namespace: Callable[[], Mapping[str, Any]],
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
        own = [tool if isinstance(tool, dspy.Tool) else dspy.Tool(tool) for tool in tools]
        assistant = build_assistant(choice, [*as_dspy_tools(server), *own])
    instrument_dspy()
    return Assembly(lm=choice, program=assistant)

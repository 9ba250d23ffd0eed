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
from pathlib import Path
from typing import Any

import dspy

from research_kit.agent import (
    LMChoice,
    ToolProgress,
    ToolRequest,
    ToolServer,
    agent_loop,
    as_dspy_tools,
    build_assistant,
    build_kernel_server,
    configured_servers,
    find_trust_question,
    list_tool_states,
    resolve_lm,
)
from research_kit.agent.papers import is_papers
from research_kit.instrumentation import instrument_dspy

__all__ = ["Assembly", "assemble", "main_namespace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What answers the messages of a conversation.

    Attributes:
        lm: The language model.
        program: The assistant.
        get_namespace: Returns the variables that the assistant sees.
        problems: Why some tools cannot be used.
    """

    lm: LMChoice
    program: dspy.Module
    get_namespace: Callable[[], Mapping[str, Any]]
    problems: tuple[str, ...] = ()

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
    tools: Sequence[Callable[..., Any] | dspy.Tool | ToolServer],
    assistant: dspy.Module | None,
    get_namespace: Callable[[], Mapping[str, Any]],
    approve: Callable[[ToolRequest], bool],
    on_progress: Callable[[ToolProgress], None],
) -> Assembly:
    """Choose the language model, connect the tools and build the assistant.

    May take as long as a local model needs to load.

    Raises:
        LMNotFoundError: When no language model can be chosen.
        ConfigError: When the model's name cannot be used.
    """
    choice = lm if isinstance(lm, LMChoice) else resolve_lm(lm)
    if choice.is_local:
        choice.lm.start()
    problems: list[str] = []
    if assistant is None:
        servers = [ToolServer("kernel", build_kernel_server(get_namespace))]
        servers += [tool for tool in tools if isinstance(tool, ToolServer)]
        usable, problems = _usable_servers(choice, servers)
        own = [_own_tool(tool) for tool in tools if not isinstance(tool, ToolServer)]
        found = as_dspy_tools(*usable, approve=approve, on_progress=on_progress)
        assistant = build_assistant(choice, [*found, *own])
    instrument_dspy()
    return Assembly(lm=choice, program=assistant, get_namespace=get_namespace, problems=tuple(problems))


def _usable_servers(choice: LMChoice, servers: list[ToolServer]) -> tuple[list[ToolServer], list[str]]:
    """Return those of the given and the configured servers that answer, and what is wrong with the others."""
    configured, broken = configured_servers(Path.cwd())
    if choice.is_local:
        # It calls the built-in tools only, so no foreign program is started for it.
        configured, broken = [server for server in configured if is_papers(server)], []
    servers = [*servers, *configured]
    states = list_tool_states(servers)
    usable = [server for server, state in zip(servers, states, strict=True) if state.problem is None]
    question = find_trust_question(Path.cwd())
    problems = [state.problem for state in [*broken, *states] if state.problem and state.is_trusted]
    return usable, problems if question is None else [question.notice, *problems]


def _own_tool(tool: Callable[..., Any] | dspy.Tool) -> dspy.Tool:
    return tool if isinstance(tool, dspy.Tool) else dspy.Tool(_in_thread(tool))


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

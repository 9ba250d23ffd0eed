"""The agent: which language model answers, which tools it may call, and the program that does both."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from research_kit.agent.loop import AgentLoop, agent_loop

if TYPE_CHECKING:
    from research_kit.agent.assistant import answer_listener, build_assistant
    from research_kit.agent.dspy_tools import aas_dspy_tools, as_dspy_tools
    from research_kit.agent.kernel_server import build_kernel_server
    from research_kit.agent.lm import LMChoice, resolve_lm
    from research_kit.agent.local_lm import stop_local_lm
    from research_kit.agent.tools import ToolOutcome, ToolServer

__all__ = [
    "AgentLoop",
    "LMChoice",
    "ToolOutcome",
    "ToolServer",
    "aas_dspy_tools",
    "agent_loop",
    "answer_listener",
    "as_dspy_tools",
    "build_assistant",
    "build_kernel_server",
    "resolve_lm",
    "stop_local_lm",
]

_MODULES = {
    "LMChoice": "lm",
    "ToolOutcome": "tools",
    "ToolServer": "tools",
    "aas_dspy_tools": "dspy_tools",
    "answer_listener": "assistant",
    "as_dspy_tools": "dspy_tools",
    "build_assistant": "assistant",
    "build_kernel_server": "kernel_server",
    "resolve_lm": "lm",
    "stop_local_lm": "local_lm",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

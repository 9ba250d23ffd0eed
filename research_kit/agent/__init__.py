"""The agent: which language model answers, which tools it may call, and the program that does both."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from research_kit.agent.loop import AgentLoop, agent_loop

if TYPE_CHECKING:
    from research_kit.agent.assistant import answer_listener, build_assistant
    from research_kit.agent.catalog import ServerState, ToolState, configured_servers, list_tool_states
    from research_kit.agent.dspy_tools import ToolRequest, aas_dspy_tools, as_dspy_tools
    from research_kit.agent.kernel_server import build_kernel_server
    from research_kit.agent.lm import LMChoice, resolve_lm
    from research_kit.agent.local_lm import stop_local_lm
    from research_kit.agent.outcomes import ToolImage, ToolOutcome, ToolProgress
    from research_kit.agent.tools import ToolServer
    from research_kit.agent.trusting import TrustQuestion, find_trust_question, read_config_state

__all__ = [
    "AgentLoop",
    "LMChoice",
    "ServerState",
    "ToolImage",
    "ToolOutcome",
    "ToolProgress",
    "ToolRequest",
    "ToolServer",
    "ToolState",
    "TrustQuestion",
    "aas_dspy_tools",
    "agent_loop",
    "answer_listener",
    "as_dspy_tools",
    "build_assistant",
    "build_kernel_server",
    "configured_servers",
    "find_trust_question",
    "list_tool_states",
    "read_config_state",
    "resolve_lm",
    "stop_local_lm",
]

_MODULES = {
    "LMChoice": "lm",
    "ServerState": "catalog",
    "ToolImage": "outcomes",
    "ToolOutcome": "outcomes",
    "ToolProgress": "outcomes",
    "ToolRequest": "dspy_tools",
    "ToolServer": "tools",
    "ToolState": "catalog",
    "TrustQuestion": "trusting",
    "aas_dspy_tools": "dspy_tools",
    "answer_listener": "assistant",
    "as_dspy_tools": "dspy_tools",
    "build_assistant": "assistant",
    "build_kernel_server": "kernel_server",
    "configured_servers": "catalog",
    "find_trust_question": "trusting",
    "list_tool_states": "catalog",
    "read_config_state": "trusting",
    "resolve_lm": "lm",
    "stop_local_lm": "local_lm",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""The conversation engine and the panel that shows it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_kit.chat.engine import Conversation, Turn
    from research_kit.chat.history import Totals
    from research_kit.chat.launch import chat
    from research_kit.chat.panel import ChatPanel
    from research_kit.chat.spending import Budget, budget

_HOMES = {
    "Budget": "spending",
    "ChatPanel": "panel",
    "Conversation": "engine",
    "Totals": "history",
    "Turn": "engine",
    "budget": "spending",
    "chat": "launch",
}

__all__ = ["Budget", "ChatPanel", "Conversation", "Totals", "Turn", "budget", "chat"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


class _CallableModule(ModuleType):
    # Importing this package puts it on `research_kit` under the name of the function that people call:
    # `research_kit.chat()` opens a panel, whichever of the two was bound to the name first.
    def __call__(self, **options: Any) -> Any:
        return __getattr__("chat")(**options)


sys.modules[__name__].__class__ = _CallableModule

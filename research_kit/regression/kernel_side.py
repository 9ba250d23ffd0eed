"""Talking to the kernel of a run without leaving a trace in its notebook.

Owns the order that a run gives its kernel, and the two silent requests that carry it there and bring back
what happened. Invariant: no request waits longer than its deadline, and a kernel without research-kit runs
the notebook all the same unless answers are to be replayed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from queue import Empty
from time import monotonic
from typing import Any

from research_kit.regression.terminal_text import strip_colours

__all__ = ["CassetteOrder", "KernelRefusedError", "KernelSide", "RunOrder"]

_BEGIN_WAIT_S = 120.0
_END_WAIT_S = 60.0
_IMPORT = "__import__('research_kit.regression.in_kernel', fromlist=['in_kernel'])"
# Not through %load_ext: the notebook's own would then say that it is loaded already.
_BEGIN = "__import__('research_kit').load_ipython_extension(get_ipython()); {module}.begin_run({order!r})"


class KernelRefusedError(Exception):
    """The kernel cannot do what was ordered; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CassetteOrder:
    """The cassette that a kernel replays or records.

    Attributes:
        path: The file.
        record: ``none``, ``missing`` or ``all``.
        replays_latency: Whether replayed answers take as long as the recorded ones.
    """

    path: str
    record: str
    replays_latency: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """What a kernel is bound to before the first cell.

    Attributes:
        session_id: The session.
        tags: Its tags.
        metadata: Its metadata.
        cassette: What is replayed; None replays nothing.
    """

    session_id: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    cassette: CassetteOrder | None = None


class KernelSide:
    """The silent conversation with one kernel.

    Args:
        client: A client of jupyter_client that waits asynchronously.
        order: What the kernel is to do; None asks nothing of it.
    """

    def __init__(self, client: Any, order: RunOrder | None) -> None:
        self._client = client
        self._order = order
        self._has_begun = False

    async def begin(self) -> None:
        """Give the order.

        Raises:
            KernelRefusedError: When answers are to be replayed and the kernel cannot do that.
        """
        if self._order is None:
            return
        code = _BEGIN.format(module=_IMPORT, order=json.dumps(asdict(self._order)))
        answer = await self._ask(code, {}, _BEGIN_WAIT_S)
        self._has_begun = answer is not None and answer["status"] == "ok"
        if not self._has_begun and self._order.cassette is not None:
            raise KernelRefusedError(_describe(answer))

    async def end(self, *, is_complete: bool) -> dict[str, Any] | None:
        """Return what the kernel has seen; None when it was told nothing or does not answer."""
        if not self._has_begun:
            return None
        answer = await self._ask("", {"seen": f"{_IMPORT}.end_run({is_complete})"}, _END_WAIT_S)
        seen = None if answer is None else answer.get("user_expressions", {}).get("seen", {})
        if not seen or seen["status"] != "ok":
            return None
        told: dict[str, Any] = json.loads(ast.literal_eval(seen["data"]["text/plain"]))
        return told

    async def _ask(self, code: str, expressions: Mapping[str, str], wait_s: float) -> dict[str, Any] | None:
        request = self._client.execute(
            code, silent=True, store_history=False, user_expressions=dict(expressions), allow_stdin=False
        )
        deadline = monotonic() + wait_s
        while (left := deadline - monotonic()) > 0:
            try:
                reply = await self._client.shell_channel.get_msg(timeout=min(left, 1.0))
            except Empty:
                if not await self._client.is_alive():
                    return None
                continue
            if reply["parent_header"].get("msg_id") == request:
                content: dict[str, Any] = reply["content"]
                return content
        return None


def _describe(answer: Mapping[str, Any] | None) -> str:
    if answer is None:
        return "The kernel did not answer when it was to replay recorded answers."
    cause = strip_colours(str(answer.get("evalue", "")))
    if answer.get("ename") in ("ModuleNotFoundError", "ImportError"):
        cause = f"{cause}. Install research-kit in the environment of the kernel"
    return f"Recorded answers cannot be replayed: {cause}."

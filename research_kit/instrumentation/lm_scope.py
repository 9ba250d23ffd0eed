"""What is in effect while an LM call runs: its usage tracker, and the watch for its first token.

Owns the settings of one call; does not make observations. DSPy calls its callbacks in the context of the
call, so settings entered when it begins are in effect inside it. Invariant: leaving never raises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import dspy
from dspy.streaming import StatusMessage
from opentelemetry.trace import Span

from research_kit.instrumentation.usage import CallTracker
from research_kit.session.attribute_names import COMPLETION_START

__all__ = ["LMScope"]

# The helpers of the instrumentation packages; they are only loaded where such a package is.
_OTEL_UTILS = "opentelemetry.instrumentation.utils"


class LMScope:
    """The settings of one LM call, in effect from creation until `leave`.

    Args:
        span: The call's observation.
    """

    def __init__(self, span: Span) -> None:
        self.tracker = CallTracker(dspy.settings.usage_tracker)
        self._stack = ExitStack()
        settings: dict[str, Any] = {"usage_tracker": self.tracker}
        stream = dspy.settings.send_stream
        if stream is not None:
            settings["send_stream"] = _WatchedStream(stream, lambda: _note_first_token(span))
        self._stack.enter_context(dspy.context(**settings))
        helpers = sys.modules.get(_OTEL_UTILS)
        if helpers is not None:
            # The provider's own client must not add a second generation with the same cost.
            self._stack.enter_context(helpers.suppress_instrumentation())

    def leave(self) -> None:
        """Restore what was in effect before."""
        try:
            self._stack.close()
        except ValueError:
            # The call ended in another context than it began in, which is gone with its task.
            return


class _WatchedStream:
    """Hands chunks on to the user's stream, and reports the first."""

    def __init__(self, stream: Any, on_first: Callable[[], None]) -> None:
        self._stream = stream
        self._on_first: Callable[[], None] | None = on_first

    async def send(self, item: Any) -> None:
        """Hand ``item`` on."""
        # Status messages of other callbacks pass here too.
        if self._on_first is not None and not isinstance(item, StatusMessage):
            report, self._on_first = self._on_first, None
            report()
        await self._stream.send(item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _note_first_token(span: Span) -> None:
    span.set_attribute(COMPLETION_START, datetime.now(UTC).isoformat().replace("+00:00", "Z"))

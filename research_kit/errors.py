"""Every error that research-kit raises on purpose.

The module owns the classes and nothing else. Invariant: each message states what failed with the
offending value, why, and what to do about it, without a password; the facts are attributes as well. A message
that quotes what others wrote is plain text.
"""

from __future__ import annotations

from research_kit._addresses import without_passwords
from research_kit.plain_text import plain_message

__all__ = [
    "BackendError",
    "ConfigError",
    "LMNotFoundError",
    "MissingExtraError",
    "ResearchKitError",
    "StoreError",
    "ToolError",
]


class ResearchKitError(Exception):
    """The root of all errors that research-kit raises on purpose."""

    def __str__(self) -> str:
        """Return the message, fit for a terminal, as it may quote anybody, and without passwords."""
        return plain_message(without_passwords(super().__str__()))


class ConfigError(ResearchKitError, ValueError):
    """A setting or an argument has a value that cannot be used."""


class MissingExtraError(ResearchKitError, ImportError):
    """An optional dependency is needed and not installed."""


class LMNotFoundError(ResearchKitError, LookupError):
    """No language model could be chosen."""


class StoreError(ResearchKitError, RuntimeError):
    """The embedded store could not be started, reached or read."""


class ToolError(ResearchKitError, RuntimeError):
    """An MCP tool server could not be reached, or a tool call failed."""


class BackendError(ResearchKitError, RuntimeError):
    """A Langfuse server (or the embedded store) refused or failed a request.

    Attributes:
        base_url: The server that was asked.
        status_code: The HTTP status of the answer; None when there was no answer.
    """

    def __init__(self, message: str, *, base_url: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.base_url = base_url
        self.status_code = status_code

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword attributes, so that the error crosses processes whole."""
        return _rebuild_backend_error, (str(self), self.base_url, self.status_code)


def _rebuild_backend_error(message: str, base_url: str, status_code: int | None) -> BackendError:
    return BackendError(message, base_url=base_url, status_code=status_code)

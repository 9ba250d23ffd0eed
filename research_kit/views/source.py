"""Where views read from.

Owns the options that views have in common. Invariant: an option that would change what a frame is, and so
what a view can show, is refused by name.
"""

from __future__ import annotations

from typing import TypedDict

from research_kit.errors import ConfigError
from research_kit.traces.cache import TraceCache
from research_kit.traces.reader import TraceReader

__all__ = ["SourceOptions", "read_options"]


class SourceOptions(TypedDict, total=False):
    """Options of everything that reads in order to show, as of `ReadOptions`.

    Attributes:
        reader: Where to read from; None means where the traces of this process go.
        cache: Whether closed ranges of time are kept on disk.
        refresh: True reads everything again.
        progress: Whether a bar is shown.
    """

    reader: TraceReader | None
    cache: bool | TraceCache | None
    refresh: bool
    progress: bool | None


def read_options(given: SourceOptions) -> SourceOptions:
    """Return the options, once they are known to be some.

    Raises:
        ConfigError: When there is no such option.
    """
    known = SourceOptions.__annotations__.keys()
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ConfigError(f"There is no argument {unknown[0]!r} here. The options are {', '.join(known)}.")
    return given

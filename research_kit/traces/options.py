"""What every frame can be asked for besides its rows.

Owns the options and their defaults; reads nothing. Invariant: an option that does not exist is refused by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from research_kit.errors import ConfigError
from research_kit.traces.cache import TraceCache
from research_kit.traces.reader import TraceReader
from research_kit.traces.tables import FrameKind, check_kind

__all__ = ["Options", "ReadOptions"]


class ReadOptions(TypedDict, total=False):
    """Options of every function that reads a frame.

    Attributes:
        reader: Where to read from; None means where the traces of this process go.
        as_: ``"pandas"``, ``"polars"`` (extra ``polars``) or ``"arrow"``; the last two have inputs,
            outputs and metadata as JSON texts.
        cache: Whether closed ranges of time are kept on disk; None means on, except for a server on this
        machine.
        refresh: True reads everything again, which is how deletions and changes of old rows are found.
        strict: False returns ``(frame, errors)`` instead of raising when a part cannot be read.
        progress: Whether a bar is shown; None means when the read takes long and somebody can see it.
        scores: True adds a column ``score_<name>`` for each score of the row's own thing: observation, trace
            or session; the mean where one has several, the newest of texts.
        includes_io: False leaves inputs and outputs out, which is most of the bytes.
        full_metadata: True asks for metadata values beyond 200 characters also without inputs and outputs.
    """

    reader: TraceReader | None
    as_: FrameKind
    cache: bool | TraceCache | None
    refresh: bool
    strict: bool
    progress: bool | None
    scores: bool
    includes_io: bool
    full_metadata: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`ReadOptions` with their defaults."""

    reader: TraceReader | None = None
    as_: FrameKind = "pandas"
    cache: bool | TraceCache | None = None
    refresh: bool = False
    strict: bool = True
    progress: bool | None = None
    scores: bool = False
    includes_io: bool = True
    full_metadata: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Check the options of a call.

        Raises:
            ConfigError: When one does not exist or cannot be used.
        """
        unknown = sorted(given.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise ConfigError(
                f"There is no argument {unknown[0]!r}. The options are {', '.join(cls.__dataclass_fields__)}."
            )
        found = cls(**given)
        check_kind(found.as_)
        return found

    def cache_for(self, reader: TraceReader) -> TraceCache | None:
        """Return the cache to use for what ``reader`` reads; None means none."""
        if isinstance(self.cache, TraceCache):
            return self.cache
        wants_cache = not reader.is_local if self.cache is None else self.cache
        return TraceCache(reader.owner) if wants_cache else None

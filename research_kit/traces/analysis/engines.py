"""Who adds up: pandas on a frame, or the server.

Owns the check of arguments that belong to one of the two only; asks no server. Invariant: an argument that
would be ignored is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from research_kit.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from research_kit.traces.reader import TraceReader

__all__ = ["Engine", "Where", "frame_or_none"]

Engine = Literal["frame", "server"]


class Where(TypedDict, total=False):
    """What the server adds up.

    Attributes:
        session_id: Only this session; None means that of this kernel, ``ALL_SESSIONS`` all of the project.
        start_time: Only what began then or later; without a time zone it is taken as local time.
        end_time: Only what began earlier; None means now.
        type: Only observations of this type, such as ``GENERATION``.
        reader: Where to read from; None means where the traces of this process go.
    """

    session_id: str | None
    start_time: datetime | str | None
    end_time: datetime | str | None
    type: str | None
    reader: TraceReader | None


def frame_or_none(
    frame: pd.DataFrame | None, engine: Engine, where: Mapping[str, Any], purpose: str
) -> pd.DataFrame | None:
    """Return the frame to add up, or None when the server does.

    Raises:
        ConfigError: When arguments do not fit together.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine is {engine!r}. Use 'frame' or 'server'.")
    unknown = sorted(where.keys() - Where.__annotations__.keys())
    if unknown:
        raise ConfigError(
            f"{purpose} has no argument {unknown[0]!r}. With engine='server' it also takes: "
            f"{', '.join(Where.__annotations__)}."
        )
    if engine == "server" and frame is not None:
        raise ConfigError(
            f"{purpose} was given a frame and engine='server', which reads no frame. Leave one of them out."
        )
    if engine == "frame" and where:
        raise ConfigError(
            f"{purpose} on a frame takes no {next(iter(where))!r}: filter the frame, or use engine='server'."
        )
    if engine == "frame" and frame is None:
        raise ConfigError(f"{purpose} needs a frame, as from observations_df(), or engine='server'.")
    return frame

"""What to read: the conditions of a read, validated and in the server's words.

Owns the translation of arguments into request parameters; sends nothing. Invariant: the times of an
`ObservationQuery` are aware, in UTC, and in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from research_kit._notices import warn_user
from research_kit.errors import ConfigError

__all__ = ["ALL_FIELD_GROUPS", "ObservationQuery", "check_limit", "to_utc"]

ALL_FIELD_GROUPS = (
    "core",
    "basic",
    "time",
    "metadata",
    "model",
    "usage",
    "prompt",
    "metrics",
    "trace_context",
)
"""All but inputs and outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationQuery:
    """Which observations to read.

    Attributes:
        session_id: Only of this session; None means of all.
        trace_id: Only of this trace.
        type: Only of this type, in Langfuse's words: ``GENERATION``, ``TOOL``, ``SPAN``...
        name: Only with this name.
        start_time: Only those that began then or later.
        end_time: Only those that began earlier.
        includes_io: False leaves inputs and outputs out, which is most of the bytes.
        has_full_metadata: Without inputs and outputs a server cuts metadata values at 200 characters, unless
            True.
        field_groups: Which of the server's groups of fields to ask for; columns of others are missing.
    """

    session_id: str | None = None
    trace_id: str | None = None
    type: str | None = None
    name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    includes_io: bool = True
    has_full_metadata: bool = False
    field_groups: tuple[str, ...] = ALL_FIELD_GROUPS

    def __post_init__(self) -> None:
        for name, moment in (("start_time", self.start_time), ("end_time", self.end_time)):
            if moment is not None and moment.tzinfo is None:
                raise ConfigError(
                    f"{name} is {moment}, which has no time zone. Use to_utc() or an aware datetime."
                )
        if self.start_time is not None and self.end_time is not None and self.start_time > self.end_time:
            raise ConfigError(
                f"start_time {self.start_time.isoformat()} lies after end_time {self.end_time.isoformat()}, "
                "so nothing can lie between. Exchange the two."
            )

    def params(self) -> dict[str, str]:
        """Return the parameters of ``GET /api/public/v2/observations``, without limit and cursor."""
        found = {
            "sessionId": self.session_id,
            "traceId": self.trace_id,
            "type": self.type,
            "name": self.name,
            "fromStartTime": _wire_time(self.start_time),
            "toStartTime": _wire_time(self.end_time),
            # Any key makes the server give all values in full.
            "expandMetadata": "notebook" if self.has_full_metadata else None,
            "fields": ",".join((*self.field_groups, "io") if self.includes_io else self.field_groups),
        }
        return {name: value for name, value in found.items() if value is not None}


def to_utc(moment: datetime | str | None, *, name: str) -> datetime | None:
    """Return ``moment`` in UTC; one without a time zone is taken as local time, with a warning.

    Args:
        moment: A datetime, or a text in ISO format such as ``2026-11-20T09:00Z``.
        name: The argument it came in, for messages.

    Raises:
        ConfigError: When it is not a moment.
    """
    if moment is None:
        return None
    parsed = _parse(moment, name)
    if parsed.tzinfo is None:
        parsed = parsed.astimezone()
        warn_user(f"{name} has no time zone and is taken as local time: {parsed.isoformat()}.")
    return parsed.astimezone(UTC)


def check_limit(limit: int | None) -> None:
    """Refuse a limit that is not a whole number from 1 on.

    Raises:
        ConfigError: When it is something else.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit is {limit!r}. Give a whole number from 1 on, or None to read everything.")


def _parse(moment: datetime | str, name: str) -> datetime:
    if isinstance(moment, datetime) and moment == moment:  # pandas' NaT is a datetime and equals nothing
        return moment
    try:
        return datetime.fromisoformat(moment)  # type: ignore[arg-type] # what is no text ends in TypeError
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} is {moment!r}, which is no moment. Give a datetime or a text like '2026-11-20T09:00Z'."
        ) from error


def _wire_time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

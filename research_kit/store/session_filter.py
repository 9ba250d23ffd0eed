"""Which sessions the list shows.

Owns the form of the list: its parameters and what they mean in SQL. Invariant: a parameter that means nothing
is left out, so that no address shows an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from research_kit.store.times import iso_to_ms

__all__ = ["FilterChoices", "SessionFilter", "list_choices"]

_MAX_CHOICES = 200
_DAY_MS = 86_400_000
# Sums per hour know all users and tags of their hour, so that a million observations need not be read.
_KNOWN = """
    SELECT {column} FROM hourly WHERE hour_ms NOT IN (SELECT hour_ms FROM stale_hours)
    UNION SELECT o.{column} FROM stale_hours AS stale CROSS JOIN observations AS o
    WHERE o.start_ms >= stale.hour_ms AND o.start_ms < stale.hour_ms + 3600000
"""
_USERS = f"""
    SELECT user_id FROM ({_KNOWN.format(column="user_id")}) WHERE user_id <> '' ORDER BY user_id LIMIT ?
"""
_TAGS = f"SELECT DISTINCT value FROM ({_KNOWN.format(column='tags')}), json_each(tags) ORDER BY value LIMIT ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """What the reader has asked for; empty texts ask for nothing.

    Attributes:
        words: Part of a session's id, or of an input or output in it.
        user: Sessions of this user.
        tag: Sessions with a trace of this tag.
        since: Sessions with an observation on that day or later, as ``2026-11-20``.
        until: Sessions with an observation on that day or earlier.
        has_errors: Only sessions in which something failed.
    """

    words: str = ""
    user: str = ""
    tag: str = ""
    since: str = ""
    until: str = ""
    has_errors: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Self:
        """Read the parameters of the form."""
        return cls(
            words=parameters.get("q", "").strip(),
            user=parameters.get("user", ""),
            tag=parameters.get("tag", ""),
            since=_day(parameters.get("since", "")),
            until=_day(parameters.get("until", "")),
            has_errors=parameters.get("errors") == "1",
        )

    def parameters(self) -> dict[str, str]:
        """Return the parameters that `of` reads."""
        given = {
            "q": self.words,
            "user": self.user,
            "tag": self.tag,
            "since": self.since,
            "until": self.until,
            "errors": "1" if self.has_errors else "",
        }
        return {name: text for name, text in given.items() if text}

    def sql(self) -> tuple[str, list[Any]]:
        """Return a condition on observations that at least one of a session must fulfil, with its values."""
        parts: list[tuple[str, list[Any]]] = []
        if self.words:
            # instr takes every character as itself, LIKE would not.
            found = "(instr(session_id, ?) OR instr(input, ?) OR instr(output, ?))"
            parts.append((found, [self.words] * 3))
        if self.user:
            parts.append(("user_id = ?", [self.user]))
        if self.tag:
            parts.append(("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", [self.tag]))
        if self.since:
            parts.append(("start_ms >= ?", [iso_to_ms(f"{self.since}T00:00:00Z")]))
        if self.until:
            parts.append(("start_ms < ?", [iso_to_ms(f"{self.until}T00:00:00Z") + _DAY_MS]))
        if self.has_errors:
            parts.append(("level = 'ERROR'", []))
        # Each may be fulfilled by another observation: the question and the failure need not be the same one.
        conditions = [
            f"session_id IN (SELECT session_id FROM observations WHERE {condition})" for condition, _ in parts
        ]
        return " AND ".join(conditions) or "true", [value for _, values in parts for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChoices:
    """What the form offers."""

    users: tuple[str, ...]
    tags: tuple[str, ...]


def list_choices(connection: sqlite3.Connection) -> FilterChoices:
    """Return the users and the tags that there are, in their order."""
    users = connection.execute(_USERS, (_MAX_CHOICES,))
    tags = connection.execute(_TAGS, (_MAX_CHOICES,))
    return FilterChoices(users=tuple(user for (user,) in users), tags=tuple(str(tag) for (tag,) in tags))


def _day(text: str) -> str:
    try:
        iso_to_ms(f"{text}T00:00:00Z")
    except (ValueError, OverflowError):
        return ""
    return text

"""Who and what a session is: ids, user, tags, metadata, and the rules that Langfuse sets for them.

Owns validation; does not know OpenTelemetry. Invariant: an `Identity` holds only values that a Langfuse
server keeps, so nothing is dropped silently later.
"""

from __future__ import annotations

import getpass
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from research_kit.config import Settings
from research_kit.errors import ConfigError

__all__ = [
    "MAX_ID_LENGTH",
    "Identity",
    "as_metadata",
    "as_tags",
    "default_user_id",
    "new_session_id",
    "validate_session_id",
]

MAX_ID_LENGTH = 200
_MAX_ENVIRONMENT_LENGTH = 40
_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every observation of a session carries.

    Attributes:
        session_id: The Langfuse session; ASCII, at most 200 characters.
        user_id: The user; at most 200 characters.
        tags: Tags of every trace, each at most 200 characters.
        metadata: Metadata of every trace; text values of at most 200 characters.
        environment: Langfuse environment; None means the server's default.
        release: Release of the researcher's code.
    """

    session_id: str
    user_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    release: str | None = None

    def __post_init__(self) -> None:
        validate_session_id(self.session_id)
        _check_text("user id", self.user_id)
        _check_tags(self.tags)
        _check_metadata(self.metadata)
        _check_environment(self.environment)
        _check_text("release", self.release)


def new_session_id() -> str:
    """Return a fresh session id: ``jupyter-`` and a random UUID."""
    return f"jupyter-{uuid.uuid4()}"


def default_user_id(settings: Settings) -> str | None:
    """Return the user from ``LANGFUSE_USER_ID``, ``JUPYTERHUB_USER`` or the login name, in this order."""
    if settings.user_id:
        return settings.user_id
    hub_user = os.environ.get("JUPYTERHUB_USER", "").strip()
    if hub_user:
        return hub_user
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no login name, as in some containers
        return None


def validate_session_id(session_id: str) -> str:
    """Return ``session_id`` when Langfuse accepts it.

    Raises:
        ConfigError: When it is empty, longer than 200 characters or not ASCII.
    """
    if not isinstance(session_id, str):
        raise ConfigError(
            f"The session id {session_id!r} is of type {type(session_id).__name__}. Give a text."
        )
    if not session_id.strip():
        raise ConfigError(
            f"The session id {session_id!r} is empty. Give a text of 1 to {MAX_ID_LENGTH} characters."
        )
    if not session_id.isascii() or not session_id.isprintable():
        wrong = next(c for c in session_id if not (c.isascii() and c.isprintable()))
        raise ConfigError(
            f"The session id {_short(session_id)} contains {wrong!r}, but Langfuse takes only printable "
            "ASCII. Write it without accents, symbols and line breaks."
        )
    _check_length("session id", session_id)
    return session_id


def as_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return ``tags`` as a tuple.

    Raises:
        ConfigError: When they are a single text, whose letters would become the tags.
    """
    if isinstance(tags, str):
        raise ConfigError(f"The tags are the single text {tags!r}. Give a list of texts: [{tags!r}].")
    if not isinstance(tags, Iterable):
        raise ConfigError(f"The tags are {tags!r}, of type {type(tags).__name__}. Give a list of texts.")
    return tuple(dict.fromkeys(tags))


def as_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as it is stored.

    Raises:
        ConfigError: When it is no mapping.
    """
    if not isinstance(metadata, Mapping):
        raise ConfigError(
            f"The metadata is of type {type(metadata).__name__}. Give a dict: {{'experiment': 'second'}}."
        )
    return dict(metadata)


def _check_text(what: str, text: str | None) -> None:
    if text is not None:
        if not isinstance(text, str):
            raise ConfigError(f"The {what} {text!r} is of type {type(text).__name__}. Give a text.")
        if not text.isprintable() and (wrong := _unsendable(text)):
            raise ConfigError(
                f"The {what} {_short(text)} contains {wrong!r}, which no server takes. Leave it out."
            )
        _check_length(what, text)


def _unsendable(text: str) -> str:
    """Return the first zero byte or half of a surrogate pair in ``text``; empty without one."""
    return next((letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"), "")


def _check_length(what: str, text: str) -> None:
    if len(text) > MAX_ID_LENGTH:
        raise ConfigError(
            f"The {what} {_short(text)} has {len(text)} characters, "
            f"and Langfuse keeps at most {MAX_ID_LENGTH}. Shorten it."
        )


def _check_tags(tags: Iterable[str]) -> None:
    for tag in tags:
        _check_text("tag", tag)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        if not key:
            raise ConfigError(f"A metadata key is {key!r}. Give each value a name.")
        _check_text("metadata key", key)
        _check_text(f"metadata value of {key!r}", value)


def _check_environment(environment: str | None) -> None:
    if environment is None:
        return
    if len(environment) > _MAX_ENVIRONMENT_LENGTH or not _ENVIRONMENT.fullmatch(environment):
        raise ConfigError(
            f"The environment {_short(environment)} is not one that Langfuse accepts. Use at most "
            f"{_MAX_ENVIRONMENT_LENGTH} lower-case letters, digits, '-' and '_', and no 'langfuse' in front."
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")

"""What Langfuse would drop is refused with a message that says why."""

from __future__ import annotations

from typing import Any

import pytest

import research_kit as rk
from research_kit.errors import ConfigError
from research_kit.session import kernel_session
from research_kit.session.identity import Identity, default_user_id, new_session_id

REFUSED = {
    "empty session": ({"session_id": " "}, r"session id ' ' is empty"),
    "long session": ({"session_id": "s" * 201}, r"has 201 characters, and Langfuse keeps at most 200"),
    "accented session": ({"session_id": "séance"}, r"contains 'é'.*ASCII"),
    "line break": ({"session_id": "a\nb"}, r"contains '\\n'.*printable"),
    "long user": ({"session_id": "s", "user_id": "u" * 201}, r"user id .* has 201 characters"),
    "long tag": ({"session_id": "s", "tags": ("t" * 201,)}, r"tag .* has 201 characters"),
    "number as session": ({"session_id": 3}, r"session id 3 is of type int"),
    "half a character": ({"session_id": "s", "user_id": "a\ud800"}, r"contains '\\ud800', which no server"),
    "unnamed metadata": ({"session_id": "s", "metadata": {"": "v"}}, r"metadata key is ''"),
    "number in metadata": ({"session_id": "s", "metadata": {"k": 3}}, r"value of 'k' 3 is of type int"),
    "capital environment": ({"session_id": "s", "environment": "Prod"}, r"environment 'Prod' is not one"),
    "reserved environment": ({"session_id": "s", "environment": "langfuse-x"}, r"no 'langfuse' in front"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_identity_refuses(case: str) -> None:
    """A value that a Langfuse server drops is an error that names value, cause and remedy."""
    values, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        Identity(**values)


def test_identity_takes_the_longest_values() -> None:
    """Values at Langfuse's limits are kept."""
    identity = Identity(session_id="s" * 200, user_id="ü" * 200, tags=("t" * 200,), environment="e" * 40)
    assert len(identity.session_id) == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tags": "one"}, r"single text 'one'.*\['one'\]"),
        ({"tags": 5}, r"tags are 5, of type int"),
        ({"metadata": ["a"]}, r"metadata is of type list"),
        ({"mask": 3}, r"mask 3 is of type int"),
        ({"mask": [3]}, r"pattern 3 is not a regular expression"),
        ({"environment": "Prod"}, r"environment 'Prod' is not one"),
        ({"release": "r" * 201}, r"release .* has 201 characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bind_refuses(arguments: dict[str, Any], message: str) -> None:
    """A mistake in binding says which argument, why, and what to give; the session stays what it was."""
    rk.unbind()
    with pytest.raises(ConfigError, match=message):
        rk.bind("s", **arguments)
    assert rk.current_session_id() is None


def test_bind_takes_environment_and_release() -> None:
    """Environment and release may be given when a session is bound, and stay until others are given."""
    try:
        rk.bind("s", environment="staging", release="v2", tags=["a", "b", "a"])
        rk.bind("t")
        identity = kernel_session().identity
        assert identity is not None
        assert (identity.environment, identity.release, identity.tags) == ("staging", "v2", ("a", "b"))
    finally:
        rk.unbind()


def test_process_joins_the_session_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``RESEARCH_KIT_SESSION_ID`` is the session that a process binds without being told."""
    monkeypatch.setenv("RESEARCH_KIT_SESSION_ID", "family")
    try:
        assert rk.bind().session_id == "family"
    finally:
        rk.unbind()


def test_session_ids_are_unique_and_readable() -> None:
    """Each new session id is another one and says where it comes from."""
    ids = {new_session_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(session_id.startswith("jupyter-") for session_id in ids)


def test_user_comes_from_langfuse_then_hub_then_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is LANGFUSE_USER_ID, else JUPYTERHUB_USER, else the login name."""
    from research_kit.config import load_settings

    monkeypatch.setenv("LOGNAME", "login")
    assert default_user_id(load_settings()) == "login"
    monkeypatch.setenv("JUPYTERHUB_USER", "hub")
    assert default_user_id(load_settings()) == "hub"
    monkeypatch.setenv("LANGFUSE_USER_ID", "langfuse")
    assert default_user_id(load_settings()) == "langfuse"

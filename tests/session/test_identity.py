"""What Langfuse would drop is refused with a message that says why."""

from __future__ import annotations

import pytest

from research_kit.errors import ConfigError
from research_kit.session.identity import Identity, default_user_id, new_session_id

REFUSED = {
    "empty session": ({"session_id": " "}, r"session id ' ' is empty"),
    "long session": ({"session_id": "s" * 201}, r"has 201 characters, and Langfuse keeps at most 200"),
    "accented session": ({"session_id": "séance"}, r"contains 'é'.*ASCII"),
    "line break": ({"session_id": "a\nb"}, r"contains '\\n'.*printable"),
    "long user": ({"session_id": "s", "user_id": "u" * 201}, r"user id .* has 201 characters"),
    "long tag": ({"session_id": "s", "tags": ("t" * 201,)}, r"tag .* has 201 characters"),
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

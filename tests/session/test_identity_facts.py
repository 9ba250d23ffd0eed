"""What a session says about the place where it runs, and which names of a ``.env`` file count."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from research_kit import session
from research_kit.errors import ConfigError
from research_kit.session import environment_file, facts


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_and_dirty_flag_of_a_repository(tmp_path: Path) -> None:
    """A repository gives its commit, and whether a tracked file was changed since."""
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert facts.find_git_facts(tmp_path) == {"git_commit": commit, "git_dirty": "false"}
    (tmp_path / "file").write_text("two")
    assert facts.find_git_facts(tmp_path) == {"git_commit": commit, "git_dirty": "true"}


def test_no_repository_and_no_git_give_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository, and without git, nothing is said and nothing fails."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert facts.find_git_facts(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.find_git_facts(tmp_path) == {}


def test_facts_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and versions are known anywhere; what is unknown is left out."""
    found = facts.session_facts()
    assert {"host", "python", "version_research_kit"} <= set(found)
    assert "notebook" not in found
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/a.ipynb")
    assert facts.session_facts()["notebook"] == "/home/ann/a.ipynb"
    monkeypatch.setenv("RESEARCH_KIT_NOTEBOOK", "x" * 300 + "/b.ipynb")
    assert len(facts.session_facts()["notebook"]) == 200
    assert facts.session_facts()["notebook"].endswith("/b.ipynb")


@pytest.fixture
def environment_file_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ``.env`` file, as the working folder; the environment is restored afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "LANGFUSE_USER_ID='ann'\nexport RESEARCH_KIT_LM=openai/x\nLANGFUSE_RELEASE\nOPENAI_API_KEY=no\n"
    )
    for name in ("LANGFUSE_USER_ID", "RESEARCH_KIT_LM"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def test_environment_file_beside_the_notebook_counts(environment_file_in: Path) -> None:
    """Binding reads names of Langfuse and of this package, and no others."""
    session.bind()
    try:
        assert session.current_user_id() == "ann"
        assert os.environ["RESEARCH_KIT_LM"] == "openai/x"
        assert "OPENAI_API_KEY" not in os.environ
        assert "LANGFUSE_RELEASE" not in os.environ
    finally:
        session.unbind()


def test_environment_file_of_the_notebooks_folder(
    environment_file_in: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Jupyter tells the notebook's path, the file in its folder counts, wherever the kernel works."""
    monkeypatch.setenv("JPY_SESSION_NAME", str(environment_file_in / "a.ipynb"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    environment_file.read_environment_file()
    assert os.environ["LANGFUSE_USER_ID"] == "ann"


@pytest.mark.parametrize(
    ("content", "is_read"),
    [(b'not = a : line\n"open\nLANGFUSE_USER_ID=ann\n', True), (b"\xff\xfeL\0", False)],
    ids=["lines of any form", "not text"],
)
def test_strange_environment_file(
    content: bytes, is_read: bool, environment_file_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines of any form are passed over without a word; a file that is no text is an error that names it."""
    (environment_file_in / ".env").write_bytes(content)
    if is_read:
        environment_file.read_environment_file()
        assert os.environ["LANGFUSE_USER_ID"] == "ann"
    else:
        with pytest.raises(ConfigError, match=r"Cannot read .*\.env'.*UTF-8"):
            environment_file.read_environment_file()
    assert capfd.readouterr() == ("", "")


def test_environment_wins_over_the_file(environment_file_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set stays as it is."""
    monkeypatch.setenv("LANGFUSE_USER_ID", "bob")
    environment_file.read_environment_file()
    assert os.environ["LANGFUSE_USER_ID"] == "bob"


def test_session_functions_bind_and_clear() -> None:
    """The three functions set session and user, keep what is not given, and clear both."""
    session.set_session("mine", "ann")
    session.set_user("bob")
    assert (session.current_session_id(), session.current_user_id()) == ("mine", "bob")
    session.set_session("other")
    assert (session.current_session_id(), session.current_user_id()) == ("other", "bob")
    session.clear_session()
    assert (session.current_session_id(), session.current_user_id()) == (None, None)

"""Settings are read from the environment, and what cannot be used is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_kit._optional import require
from research_kit.config import (
    DEFAULT_LANGFUSE_URL,
    keep_loopback_direct,
    load_settings,
    private_directory,
    temporary_directory,
)
from research_kit.errors import BackendError, ConfigError, MissingExtraError
from research_kit.session.spools import spool_paths

REFUSED = {
    "only the public key": ({"LANGFUSE_PUBLIC_KEY": "pk"}, "LANGFUSE_SECRET_KEY is not set"),
    "only the secret key": ({"LANGFUSE_SECRET_KEY": "sk"}, "LANGFUSE_PUBLIC_KEY is not set"),
    "address without scheme": ({"LANGFUSE_BASE_URL": "langfuse.org"}, "'langfuse.org', which is not a web"),
    "neither true nor false": ({"LANGFUSE_TRACING_ENABLED": "maybe"}, "'maybe', which is neither true nor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_refuse(case: str) -> None:
    """A setting that cannot be used is an error that names it."""
    environ, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        load_settings(environ)


def test_settings_of_an_empty_environment() -> None:
    """With nothing configured, traces go to the embedded store and no model is named."""
    settings = load_settings({})
    assert settings.public_key is None
    assert settings.lm is None
    assert settings.is_tracing_enabled
    assert settings.base_url == DEFAULT_LANGFUSE_URL


def test_settings_of_a_langfuse_server() -> None:
    """Langfuse's own variables select its server; a slash at the end is taken off."""
    settings = load_settings(
        {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "LANGFUSE_HOST": "http://localhost:3000/"}
    )
    assert (settings.public_key, settings.secret_key) == ("pk", "sk")
    assert settings.base_url == "http://localhost:3000"


def test_private_directory_refuses_a_file(tmp_path: Path) -> None:
    """A data folder that is a file is refused with its path and a remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"Cannot use '.*file' as the folder for tests.*RESEARCH_KIT_DATA_DIR"
    ):
        private_directory(tmp_path / "file", purpose="tests")


def test_private_directory_is_private(tmp_path: Path) -> None:
    """Others cannot enter a folder that holds traces."""
    path = private_directory(tmp_path / "a" / "b", purpose="tests")
    assert path.stat().st_mode & 0o777 == 0o700


def test_missing_extra_names_the_command() -> None:
    """A missing optional package is an ImportError with the line that installs it."""
    with pytest.raises(
        MissingExtraError,
        match=r"needed to draw\. Install it with: pip install 'jupyter-research-kit\[plots\]'",
    ):
        require("no_such_library", extra="plots", purpose="draw")


def test_backend_error_crosses_processes() -> None:
    """The facts of an error survive pickling."""
    error = pickle.loads(pickle.dumps(BackendError("refused", base_url="http://x", status_code=401)))
    assert (str(error), error.base_url, error.status_code) == ("refused", "http://x", 401)


@pytest.mark.parametrize(
    ("proxy", "no_proxy", "expected"),
    [
        ("http://proxy:8080", "", "127.0.0.1,localhost,::1"),
        ("http://proxy:8080", "intranet, localhost", "intranet,localhost,127.0.0.1,::1"),
        ("http://proxy:8080", "*", "*"),
        ("", "intranet", "intranet"),
    ],
)
def test_loopback_goes_past_a_proxy(monkeypatch, proxy: str, no_proxy: str, expected: str) -> None:
    """Servers on this machine are added to what goes past a proxy, and nothing is changed without one."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name.upper(), "")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("no_proxy", no_proxy)
    keep_loopback_direct()
    assert os.environ["no_proxy"] == expected


# Permissions bind only those who are not root. What is needed is imported before the change of user, who may
# be unable to read the installation.
_UNPRIVILEGED = """
import os
from research_kit import bind, status
from research_kit.config import load_settings
from research_kit.masking import masked_text
bind(), status(), masked_text("a text")
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
settings = load_settings()
print(settings.data_dir, settings.cache_dir, oct(settings.data_dir.parent.stat().st_mode & 0o777), sep="\\n")
print(status().reason)
"""
_UNPRIVILEGED_ID = os.getuid() or 65534


@pytest.fixture
def home_that_cannot_be_written() -> Iterator[Path]:
    """Return a folder with a read-only ``home`` and a ``tmp``, which every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        for name, mode in (("home", 0o555), ("tmp", 0o777), (".", 0o755)):
            Path(folder, name).mkdir(exist_ok=True)
            Path(folder, name).chmod(mode)
        yield Path(folder)


def ask_as_unprivileged_user(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _UNPRIVILEGED],
        env={"PATH": os.environ["PATH"], "HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", **environ},
        capture_output=True,
        text=True,
    )


def test_home_that_cannot_be_written_is_replaced(home_that_cannot_be_written: Path) -> None:
    """With a read-only home everything works in a temporary folder of the user, and the status says so."""
    folder = home_that_cannot_be_written
    data_dir, cache_dir, mode, reason = ask_as_unprivileged_user(folder).stdout.splitlines()
    own = folder / "tmp" / f"research-kit-{_UNPRIVILEGED_ID}"
    assert (data_dir, cache_dir, mode) == (str(own / "data"), str(own / "cache"), "0o700")
    assert f"kept in '{data_dir}', which the system may clear, because '{folder}/home" in reason
    assert "Set RESEARCH_KIT_DATA_DIR" in reason
    chosen = str(folder / "tmp" / "chosen")
    lines = ask_as_unprivileged_user(folder, RESEARCH_KIT_DATA_DIR=chosen).stdout.splitlines()
    assert (lines[0], lines[3:]) == (chosen, [""])


def test_system_without_user_numbers_has_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, too, what cannot be written elsewhere has a folder, where spools are looked for."""
    monkeypatch.delattr(os, "getuid")  # Windows has none, and no test runs there
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert spool_paths(tmp_path / "project") == []
    assert temporary_directory() == tmp_path / "research-kit"
    waiting = tmp_path / "research-kit" / "spool" / "project" / "1.spool"
    waiting.parent.mkdir(parents=True)
    waiting.touch()
    assert spool_paths(tmp_path / "project") == [waiting]


def test_temporary_folder_of_somebody_else_is_refused(home_that_cannot_be_written: Path) -> None:
    """A folder that another user laid out under the expected name is not used for traces."""
    name = f"research-kit-{_UNPRIVILEGED_ID}"
    Path(home_that_cannot_be_written, "tmp", name).symlink_to(home_that_cannot_be_written)
    assert "it belongs to another user" in ask_as_unprivileged_user(home_that_cannot_be_written).stderr

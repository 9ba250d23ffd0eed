"""Settings are read from the environment, and what cannot be used is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from research_kit._optional import require
from research_kit.config import DEFAULT_LANGFUSE_URL, load_settings, private_directory
from research_kit.errors import BackendError, ConfigError, MissingExtraError

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
        MissingExtraError, match=r"needed to draw\. Install it with: pip install 'research-kit\[plots\]'"
    ):
        require("no_such_library", extra="plots", purpose="draw")


def test_backend_error_crosses_processes() -> None:
    """The facts of an error survive pickling."""
    error = pickle.loads(pickle.dumps(BackendError("refused", base_url="http://x", status_code=401)))
    assert (str(error), error.base_url, error.status_code) == ("refused", "http://x", 401)

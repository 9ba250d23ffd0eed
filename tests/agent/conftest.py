"""The small local model, started once for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from research_kit.agent import LMChoice, resolve_lm, stop_local_lm
from research_kit.config import Settings, load_settings


@pytest.fixture(scope="session")
def local_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a cache folder of this worker, whose server is stopped at the end."""
    directory: Path = tmp_path_factory.mktemp("local-lm")
    settings = load_settings({"RESEARCH_KIT_CACHE_DIR": str(directory)})
    yield settings
    stop_local_lm(settings)
    # 253 MB that pytest would otherwise keep for three runs.
    for model in directory.rglob("*.gguf"):
        model.unlink()


@pytest.fixture
def local_choice(local_settings: Settings) -> LMChoice:
    """The small local model, running."""
    choice = resolve_lm("local", settings=local_settings)
    choice.lm.start()
    return choice

"""The documentation is built without a warning, and its reference names everything that is public."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import research_kit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run([*command, str(ROOT / "docs"), str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_reference_has_every_public_name(site: Path) -> None:
    """Functions and classes of the package are in the reference, from their docstrings."""
    page = (site / "reference.html").read_text()
    named = {name for name in research_kit.__all__ if hasattr(getattr(research_kit, name), "__module__")}
    hooks = {"load_ipython_extension", "unload_ipython_extension"}
    others = {"langfuse_manager", "aio", "ResearchKitError"}
    missing = {name for name in named - hooks - others if f'id="research_kit.{name}"' not in page}
    assert 'id="research_kit.errors.ResearchKitError"' in page
    assert missing == set()


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    """A reader without a network sees the pages as they are meant."""
    page = (site / "index.html").read_text()
    sources = [
        part.split('"')[0]
        for key in ('src="', 'rel="stylesheet" type="text/css" href="')
        for part in page.split(key)[1:]
    ]
    assert sources
    assert not [source for source in sources if source.startswith(("http:", "https:", "//"))]


def test_picture_of_the_architecture_is_drawn_from_the_code() -> None:
    """The picture shows the imports as they are now; `python docs/draw_architecture.py` draws it."""
    drawing = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))
    assert drawing["PICTURE"].read_text() == drawing["draw"]()


def test_pre_commit_uses_the_versions_of_make_check() -> None:
    """A commit is checked as CI checks it."""
    versions = [
        set(re.findall(r"ruff==([\d.]+)", (ROOT / name).read_text()))
        for name in (".pre-commit-config.yaml", "pyproject.toml")
    ]
    assert versions[0] == versions[1]
    assert len(versions[0]) == 1

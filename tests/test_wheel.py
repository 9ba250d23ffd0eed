"""What is installed is complete: wheel and sdist carry the front end, and work outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_wheel_carries_what_is_needed(packages: Path) -> None:
    """The wheel has the front end, the types marker and the entry points, and nothing of the tests."""
    [wheel] = packages.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry_points] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    for name in (
        "chat/static/index.js",
        "chat/static/index.css",
        "py.typed",
        "store/model_prices.json",
        "masking/formats.json",
    ):
        assert f"research_kit/{name}" in names
    assert not [name for name in names if name.startswith(("tests/", "notebooks/", "widgets/"))]
    assert "pytest_plugin" in entry_points
    assert "research_kit.cli:main" in entry_points


def test_sdist_carries_the_sources_of_the_front_end(packages: Path) -> None:
    """A wheel can be built again from the sdist."""
    [sdist] = packages.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "widgets/chat_panel/index.js",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "environment.yml",
    } <= names


def test_wheel_works_outside_the_checkout(packages: Path, tmp_path: Path) -> None:
    """The installed package finds its front end without the checkout."""
    [wheel] = packages.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import research_kit, research_kit.chat.panel as panel;"
        "print(research_kit.__file__, panel.find_asset('index.js'), panel.find_asset('index.css'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    for line in run.stdout.split():
        assert line.startswith(str(tmp_path / "site")), line

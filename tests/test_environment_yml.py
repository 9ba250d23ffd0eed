"""environment.yml and pyproject.toml ask for the same packages."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_environment_yml_equals_pyproject() -> None:
    """The conda environment holds exactly the dependencies and extras of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    }
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [through_pip] = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert set(through_pip) - {"-e ."} == wanted
    assert f"python{project['requires-python']}" in dependencies


def test_prescribed_packages_are_dependencies() -> None:
    """The packages that the toolkit is built on are asked for by name."""
    text = (ROOT / "pyproject.toml").read_text()
    for package in ("jupyterlab", "ipywidgets", "langfuse", "dspy-ai", "mcp", "pandas", "nbval", "papermill"):
        assert f'"{package}>=' in text, package

"""pyproject.toml asks for what the package imports, and environment.yml for the same."""

from __future__ import annotations

import ast
import sys
import tomllib
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Imported where the user's own environment has it, or in the environment of a benchmark's peers.
NOT_OURS = {"kingfisher_sdk", "litellm", "mlflow", "panel", "phoenix"}


# It reads the files of every installed distribution.
packages_distributions = cache(metadata.packages_distributions)


def asked_for(*groups: str) -> set[str]:
    """Return the requirements of the package and of all its extras, and of dependency groups."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = content["project"]["optional-dependencies"].values()
    named = [content["dependency-groups"][group] for group in groups]
    return {*content["project"]["dependencies"], *chain.from_iterable([*extras, *named])}


def installed_with(requirements: set[str]) -> set[str]:
    """Return the distributions that come with requirements, and with what they require."""
    found: set[str] = set()
    waiting = [Requirement(requirement) for requirement in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, metadata.requires(name) or ())
    return found


def imported_by(path: Path) -> set[str]:
    """Return the top-level names that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("folder", "groups"),
    [("research_kit", ()), ("tests", ("demo", "test")), ("benchmarks", ("demo", "test"))],
)
def test_everything_imported_is_asked_for(folder: str, groups: tuple[str, ...]) -> None:
    """What is imported comes with the package and its extras; what tests need besides, with their group."""
    files = list((ROOT / folder).rglob("*.py"))
    # Benchmarks use what supports the tests.
    own = {"research_kit", "benchmarks", *(path.stem for path in [*files, *(ROOT / "tests").rglob("*.py")])}
    installed, distributions = installed_with(asked_for(*groups)), packages_distributions()
    missing = {
        (name, str(path.relative_to(ROOT)))
        for path in files
        for name in imported_by(path) - own - NOT_OURS - sys.stdlib_module_names
        if not installed & {canonicalize_name(found) for found in distributions.get(name, [])}
    }
    assert missing == set()


def test_environment_yml_equals_pyproject() -> None:
    """The conda environment holds exactly the dependencies and extras of the package."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [through_pip] = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert set(through_pip) - {"-e .", "-c requirements.lock"} == asked_for()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in dependencies


def test_lock_file_has_a_version_for_everything() -> None:
    """What pyproject.toml asks for, on every supported Python, has one version in the lock file that fits."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(line) for line in lines if not line.startswith("#")]
    asked = [Requirement(requirement) for requirement in asked_for("demo", "docs", "test")]
    for python in ("3.11", "3.12", "3.13"):
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        versions = {
            canonicalize_name(one.name): next(iter(one.specifier)).version
            for one in locked
            if one.marker is None or one.marker.evaluate(environment)
        }
        for requirement in asked:
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), (python, requirement, version)


def test_prescribed_packages_are_dependencies() -> None:
    """The packages that the toolkit is built on are asked for by name."""
    text = (ROOT / "pyproject.toml").read_text()
    for package in ("jupyterlab", "ipywidgets", "langfuse", "dspy-ai", "mcp", "pandas", "nbval", "papermill"):
        assert f'"{package}>=' in text, package

"""pyproject.toml asks for what the package imports, and environment.yml for the same."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Imported where the user's own environment has it, and only there.
BROUGHT_BY_USERS = {"litellm"}


def asked_for() -> set[str]:
    """Return the requirements of the package and of all its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return {*project["dependencies"], *(requirement for extra in extras for requirement in extra)}


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


def test_everything_imported_is_asked_for() -> None:
    """A module of the package imports only what installing the package with its extras brings."""
    installed, distributions = installed_with(asked_for()), metadata.packages_distributions()
    missing = set()
    for path in (ROOT / "research_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - BROUGHT_BY_USERS - {"research_kit"}:
                if not installed & {canonicalize_name(found) for found in distributions.get(name, [])}:
                    missing.add((name, str(path.relative_to(ROOT))))
    assert {found for found in missing if found[0] not in sys.stdlib_module_names} == set()


def test_environment_yml_equals_pyproject() -> None:
    """The conda environment holds exactly the dependencies and extras of the package."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [through_pip] = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert set(through_pip) - {"-e ."} == asked_for()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in dependencies


def test_prescribed_packages_are_dependencies() -> None:
    """The packages that the toolkit is built on are asked for by name."""
    text = (ROOT / "pyproject.toml").read_text()
    for package in ("jupyterlab", "ipywidgets", "langfuse", "dspy-ai", "mcp", "pandas", "nbval", "papermill"):
        assert f'"{package}>=' in text, package

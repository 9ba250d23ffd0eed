"""Notebooks and small projects, built for one test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from research_kit.store import stop_store

Tags = Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder with a pyproject.toml, notebooks, and a way to call pytest in it as its user would."""

    root: Path

    def configure(self, *lines: str) -> Path:
        pyproject = self.root / "pyproject.toml"
        head = ("[tool.pytest.ini_options]", 'testpaths = ["tests"]', "[tool.research_kit.regression]")
        pyproject.write_text("\n".join((*head, *lines, "")), encoding="utf-8")
        return pyproject

    def notebook(self, name: str, *sources: str, tags: Tags | None = None) -> Path:
        """Write notebooks/<name>.ipynb without outputs; `tags` is keyed by the position of the cell."""
        path = self.root / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
        for number, names in (tags or {}).items():
            cells[number].metadata["tags"] = list(names)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        foreign = ("PYTEST_", "COV_", "LANGFUSE_", "RESEARCH_KIT_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # These plugins have nothing to do with it; nbval's alone imports for seconds.
        unneeded = ["no:asyncio", "no:pytest_cov", "no:nbmake", "no:schemathesis", "no:hypothesispytest"] + (
            [] if "--nbval" in arguments else ["no:nbval"]
        )
        disabled = [word for plugin in unneeded for word in ("-p", plugin)]
        command = [sys.executable, "-m", "pytest", "--no-header", "-ra", *disabled, *arguments]
        return subprocess.run(
            command, cwd=self.root, env=environ, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    yield Project(root=tmp_path)
    # One that a notebook's kernel started, if any did.
    stop_store(tmp_path / "data")

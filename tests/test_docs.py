"""What is public is documented, and what the README shows exists."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import research_kit
from research_kit import config
from research_kit.cli.commands import build_parser

ROOT = Path(__file__).parents[1]
DOCS = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXT = "\n".join(DOCS.values())
# Hooks that IPython calls by name.
INTERNAL = {"load_ipython_extension", "unload_ipython_extension"}


def commands(parser: argparse.ArgumentParser, prefix: str = "research-kit") -> Iterator[str]:
    for action in parser._actions:  # argparse has no public way to list the commands
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{prefix} {name}"
                yield from commands(child, f"{prefix} {name}")


@pytest.mark.parametrize("name", sorted(set(research_kit.__all__) - INTERNAL))
def test_public_name_is_documented(name: str) -> None:
    """Every name of the package is named in the README or the docs."""
    assert re.search(rf"\b{name}\b", TEXT), f"{name} is in no document"


def test_every_setting_is_documented() -> None:
    """Every environment variable that is read is in the README."""
    source = Path(config.__file__).read_text()
    settings = set(re.findall(r'"((?:LANGFUSE|RESEARCH_KIT)_[A-Z_]+)"', source))
    missing = [name for name in sorted(settings - {"LANGFUSE_HOST"}) if name not in DOCS[ROOT / "README.md"]]
    assert not missing


def test_every_command_is_documented() -> None:
    """Every command of the command line is in the README or the docs."""
    assert [command for command in commands(build_parser()) if command not in TEXT] == []


def test_every_make_target_of_the_readme_exists() -> None:
    """The commands that the README names are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", DOCS[ROOT / "README.md"])):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_nobody_is_told_to_install_another_project() -> None:
    """What pip is told to install is this project, whose name there is not that of the command."""
    sources = (ROOT / "research_kit").rglob("*.py")
    texts = {**DOCS, **{path: path.read_text() for path in sources}}
    told = [
        (path.name, match[0])
        for path, text in texts.items()
        for match in re.finditer(r"pip install[^`\n]*(?<![\w-])research-kit\b", text)
    ]
    assert told == []


def test_links_between_documents_lead_somewhere() -> None:
    """Links to files of the repository are right."""
    for path, text in DOCS.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_names_in_readme_examples_exist() -> None:
    """Names of the package that the README's examples use exist."""
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        for name in re.findall(r"\brk\.(\w+)", block):
            assert name in research_kit.__all__, name

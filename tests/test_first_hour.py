"""The first hour: what a new project begins with, and what is said about a setup that does not work yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from research_kit.regression import run_notebook
from research_kit.store import stop_store

Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return what runs a command in an empty folder, with nothing configured but what it is given."""
    folder = tmp_path / "project"
    folder.mkdir()
    private = ("LANGFUSE_", "RESEARCH_KIT_", "OPENAI_")
    known = {name: value for name, value in os.environ.items() if not name.startswith(private)}

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "research_kit.cli", *arguments],
            cwd=folder,
            env={**known, "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data"), **environ},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_doctor_finds_nothing_wrong_with_nothing_configured(ask: Ask, tmp_path: Path) -> None:
    """Without keys and settings everything works, also when no Python is on the path; nothing is created."""
    answer = ask("doctor", PATH=str(tmp_path))
    assert answer.returncode == 0, answer.stdout
    assert "which starts with the first trace" in answer.stdout
    assert "the small local model, because no other was named" in answer.stdout
    assert answer.stdout.endswith("no problems\n")
    assert not (tmp_path / "data").exists()


PROBLEMS = {
    "half of the keys": ({"LANGFUSE_PUBLIC_KEY": "pk"}, "problem  settings  LANGFUSE_SECRET_KEY is not set"),
    "wrong host": (
        {
            "LANGFUSE_PUBLIC_KEY": "pk",
            "LANGFUSE_SECRET_KEY": "sk",
            "LANGFUSE_BASE_URL": "http://127.0.0.1:9",
        },
        "problem  traces    Cannot reach http://127.0.0.1:9: ",
    ),
    "no key of the model": (
        {"RESEARCH_KIT_LM": "openai/gpt-4o-mini"},
        "problem  model     The language model 'openai/gpt-4o-mini' cannot be called: no API key",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_doctor_names_what_will_not_work(ask: Ask, case: str) -> None:
    """What is wrong is a problem of its own line, and the exit code says that there is one."""
    environ, expected = PROBLEMS[case]
    answer = ask("doctor", **environ)
    assert answer.returncode == 1
    assert expected in answer.stdout
    assert answer.stdout.endswith("1 problem\n")


def test_doctor_looks_at_tool_servers_and_proxies(ask: Ask, tmp_path: Path) -> None:
    """A tool server whose program is missing is a problem; a proxy is worth a word."""
    servers = {"good": {"command": sys.executable}, "bad": {"command": "no-such-program"}, "odd": {}}
    (tmp_path / "project" / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    project = str(tmp_path / "project")
    answer = ask(
        "doctor", HTTPS_PROXY="http://proxy.example:3128", https_proxy="", RESEARCH_KIT_TRUST=project
    )
    assert f"ok       tools     good runs {sys.executable}" in answer.stdout
    assert "needs the program 'no-such-program', which is not there" in answer.stdout
    assert "give either 'command' or 'url'" in answer.stdout
    assert "HTTPS_PROXY sends what leaves this machine through proxy.example:3128" in answer.stdout
    assert answer.stdout.endswith("2 problems\n")


def test_init_writes_a_project_that_runs(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `init` writes is complete: its notebook runs, and a second call changes nothing."""
    project, data_dir = tmp_path / "project", tmp_path / "data"
    assert ask("init").stdout.count("written") == 5
    files = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert ask("init").stdout.count("kept") == 5
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == files
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    try:
        result = run_notebook(
            project / "notebooks" / "first_session.ipynb", output_path=tmp_path / "executed.ipynb"
        )
    finally:
        stop_store(data_dir)
    assert result.outcome == "passed", result.message


def test_init_adds_to_what_is_there(ask: Ask, tmp_path: Path) -> None:
    """Files of the project are kept; only missing lines and the missing table are added."""
    project = tmp_path / "project"
    (project / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    (project / ".gitignore").write_text(".env\ndata/")
    (project / "mcp.json").write_text("{}")
    assert ask("init").stdout.split()[:10:2] == ["written", "extended", "kept", "written", "extended"]
    assert (
        (project / "pyproject.toml").read_text().startswith('[project]\nname = "mine"\n\n[tool.research_kit')
    )
    assert (project / ".gitignore").read_text() == ".env\ndata/\n.research_kit/\n"
    assert (project / "mcp.json").read_text() == "{}"


def test_init_says_when_it_cannot_write(ask: Ask, tmp_path: Path) -> None:
    """A folder that is a file is refused with its name and a remedy."""
    (tmp_path / "file").write_text("")
    answer = ask("init", str(tmp_path / "file"))
    assert answer.returncode == 2
    assert f"Cannot write '{tmp_path}/file" in answer.stderr

"""The command line does what it says and ends with a clear exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import nbformat
import pytest
from page_visits import path_of

from research_kit.cli import main
from research_kit.store import stop_store


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    stop_store(tmp_path / "data")


def test_store_starts_tells_and_stops(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store's life by hand: start, status as JSON with working keys, link, stop."""
    assert main(["store", "status"]) == 0
    assert "not running" in capsys.readouterr().out
    assert main(["store", "start"]) == 0
    assert "the store runs at http://127.0.0.1:" in capsys.readouterr().out
    assert main(["store", "status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["is_running"]
    keys = (status["public_key"], status["secret_key"])
    assert httpx.get(f"{status['base_url']}/api/public/projects", auth=keys).status_code == 200
    assert status["path"] == str(data_dir / "store.db")
    assert main(["store", "open"]) == 0
    link = capsys.readouterr().out.strip()
    host = urlsplit(link).netloc
    assert httpx.get(f"{status['base_url']}{path_of(link)}", headers={"host": host}).status_code == 200
    assert main(["store", "path"]) == 0
    assert capsys.readouterr().out == f"{data_dir / 'store.db'}\n"
    copy = data_dir.with_name("copy.db")
    assert main(["store", "backup", str(copy)]) == 0
    assert capsys.readouterr().out == f"written: {copy}\n"
    assert main(["store", "backup", str(copy)]) == 2
    assert "it exists. Give another name" in capsys.readouterr().err
    assert main(["store", "vacuum"]) == 0
    assert "the database has 0.1 MB; it had" in capsys.readouterr().out
    assert main(["store", "stop"]) == 0
    assert capsys.readouterr().out == "the store was stopped\n"
    assert main(["store", "stop"]) == 0
    assert capsys.readouterr().out == "the store was not running\n"


def test_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be used ends with exit code 2 and one line that names it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(tmp_path / "file"))
    assert main(["store", "start"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("research-kit: ")
    assert str(tmp_path / "file") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("source", "code", "word"), [("1 + 1", 0, "passed"), ("1 / 0", 1, "failed")])
def test_run_tells_how_a_notebook_ended(
    source: str, code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running a notebook gives its outcome, the executed copy, and an exit code that a script can use."""
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "one.ipynb"
    )
    assert main(["run", str(tmp_path / "one.ipynb"), "--output", str(tmp_path / "out.ipynb")]) == code
    assert capsys.readouterr().out.startswith(word)
    assert (tmp_path / "out.ipynb").exists()

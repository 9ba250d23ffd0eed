"""Notebooks and executed copies behind addresses: papermill's handlers and those of others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import pytest
from papermill.iorw import LocalHandler, papermill_io

from research_kit.cli import main
from research_kit.errors import ConfigError
from research_kit.regression import load_plan, run_notebook
from research_kit.regression.remote import fetch, is_remote, join_address, send, shown


@dataclass
class Storage:
    """What a server on loopback holds; it refuses to be written to at /closed."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, path: str, *sources: str) -> str:
        cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
        self.files[path] = nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode()
        return f"{self.address}{path}"


class _Handler(BaseHTTPRequestHandler):
    storage: ClassVar[Storage]

    def do_GET(self) -> None:
        content = self.storage.files.get(self.path.partition("?")[0])
        self._answer(404 if content is None else 200, b"no such file" if content is None else content)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        is_closed = self.path.startswith("/closed")
        if not is_closed:
            self.storage.files[self.path.partition("?")[0]] = content
        self._answer(403 if is_closed else 201, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The storage is looked at instead."""


@pytest.fixture
def storage() -> Iterator[Storage]:
    held = Storage()
    handler = type("Handler", (_Handler,), {"storage": held})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        held.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield held
        server.shutdown()
        thread.join()


class ShelfHandler(LocalHandler):
    """Somebody's own handler: shelf://a/b.ipynb is a file below a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def read(self, path: str) -> str:
        return super().read(str(self._folder / path.removeprefix("shelf://")))

    def write(self, buf: str, path: str) -> None:
        super().write(buf, str(self._folder / path.removeprefix("shelf://")))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    # A handler cannot be taken back; the next one of the same scheme comes before it.
    papermill_io.register("shelf://", ShelfHandler(folder))
    return folder


def test_addresses_are_told_from_paths_and_hide_their_keys(tmp_path):
    """A scheme makes an address; what is shown of it has neither user nor query; a query stays last."""
    assert [is_remote(place) for place in ("s3://b/a.ipynb", "dbfs:/a", "a/b.ipynb", "C:/a.ipynb", "-")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert not is_remote(Path("s3://b/a.ipynb"))
    assert shown("https://me:key@host/a.ipynb?sig=key") == "https://host/a.ipynb"
    assert join_address("abs://host/runs/?sig=key", "a.ipynb") == "abs://host/runs/a.ipynb?sig=key"


def test_run_fetches_and_sends(storage, tmp_path, monkeypatch, capsys):
    """A remote notebook runs in the current folder, also on the command line, and its copy is sent."""
    monkeypatch.chdir(tmp_path)
    address = storage.put("/in/sum.ipynb", "import os; print(os.path.basename(os.getcwd()))")
    assert main(["run", f"{address}?sig=key", "--output", f"{storage.address}/out/sum.ipynb?sig=key"]) == 0
    told = capsys.readouterr().out
    assert f"sent to {storage.address}/out/sum.ipynb\n" in told
    assert "key" not in told
    sent = json.loads(storage.files["/out/sum.ipynb"])
    assert sent["cells"][0]["outputs"][0]["text"] == [f"{tmp_path.name}\n"]
    # What was run and what was sent is kept, out of version control.
    kept = sorted(path.relative_to(tmp_path).parts[-1] for path in tmp_path.rglob("*.ipynb"))
    assert kept == ["sum.ipynb", "sum.ipynb"]
    assert (tmp_path / ".research_kit" / "remote" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_run_tells_what_cannot_be_fetched_or_sent(storage, tmp_path, monkeypatch):
    """A refused copy is kept and named; a missing notebook is a result; what failed before stays first."""
    monkeypatch.chdir(tmp_path)
    failing = storage.put("/in/failing.ipynb", "print('here')", "1 / 0")
    refused = run_notebook(failing, output_path=f"{storage.address}/closed/a.ipynb")
    assert (refused.outcome, refused.sent_to) == ("failed", None)
    assert refused.message.startswith(
        "ZeroDivisionError: division by zero. Cannot send the executed copy to "
    )
    assert "HTTPError: 403 Client Error: Forbidden" in refused.message
    assert refused.message.endswith(f"The copy is kept as {str(refused.output_path)!r}.")
    assert "here" in refused.output_path.read_text(encoding="utf-8")

    passing = storage.put("/in/passing.ipynb", "1")
    unsent = run_notebook(passing, output_path=f"{storage.address}/closed/a.ipynb")
    assert (unsent.outcome, unsent.message[:32]) == ("failed", "Cannot send the executed copy to")

    gone = run_notebook(f"{storage.address}/in/gone.ipynb", output_path="gone.ipynb")
    assert gone.outcome == "not_started"
    assert gone.message == (
        f"Cannot read the notebook '{storage.address}/in/gone.ipynb': the server answered 404 Not Found. "
        "Check the address, and the credentials of its storage."
    )
    with pytest.raises(ConfigError, match="output_path is the notebook itself"):
        run_notebook(passing, output_path=passing)
    with pytest.raises(ConfigError, match=r"'s3:/b/a\.ipynb' is a Path, which cannot hold an address\. Give"):
        run_notebook(passing, output_path=Path("s3://b/a.ipynb"))


def test_plan_with_addresses_of_a_handler_of_ones_own(project, shelf, monkeypatch, capsys):
    """Remote notebooks are runs of the plan, settings in them count, copies are sent, baselines stay here."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)", id="a")])
    notebook.metadata["research_kit"] = {"markers": ["remote"]}
    nbformat.write(notebook, shelf / "far away.ipynb")
    (shelf / "runs").mkdir()
    project.notebook("near", "print(2)")
    project.configure(
        'notebooks = ["notebooks/*.ipynb", "shelf://far away.ipynb", "shelf://gone.ipynb"]',
        'output_dir = "shelf://runs"',
        'expected_dir = "expected"',
    )
    monkeypatch.chdir(project.root)
    assert main(["test", "--accept"]) == 1
    told = capsys.readouterr().out
    assert (
        "gone: not_started\nnot started: Cannot read the notebook 'shelf://gone.ipynb': FileNotFound" in told
    )
    assert sorted(path.name for path in (shelf / "runs").iterdir()) == ["far away.ipynb", "near.ipynb"]
    assert sorted(path.name for path in (project.root / "expected").iterdir()) == [
        "far away.json",
        "near.json",
    ]
    planned = {one.name: one for one in load_plan(project.root).notebooks}
    assert list(planned) == ["near", "far away", "gone"]
    assert planned["far away"].options.markers == ("remote",)
    assert main(["test", "near", "shelf://far away.ipynb"]) == 0


def test_pytest_runs_remote_notebooks_where_they_are_named(project, storage):
    """`pytest pyproject.toml` runs the remote notebooks of the plan; other test runs need no network."""
    address = storage.put("/in/far.ipynb", "print(1)")
    gone = f"{storage.address}/in/gone.ipynb"
    project.notebook("near", "print(2)")
    project.configure(f'notebooks = ["notebooks/*.ipynb", "{address}", "{gone}"]')
    done = project.pytest("pyproject.toml", "notebooks", "-v")
    assert "pyproject.toml::far PASSED" in done.stdout, done.stdout + done.stderr
    assert "near.ipynb::run PASSED" in done.stdout
    assert "the server answered 404 Not Found" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ['notebooks = ["s3://b/*.ipynb"]'],
            r"the pattern 's3://b/\*\.ipynb'; a storage cannot be searched\.",
        ),
        (['notebooks = ["s3://b/a.ipynb", "gs://b/a.ipynb"]'], r"'(s3|gs)://b/a\.ipynb' and .*Rename one"),
        (['notebooks = ["s3://b/a.ipynb"]', 'expected_dir = "s3://b"'], r"it has to be a folder of this ma"),
    ],
)
def test_plan_refuses_addresses_that_cannot_work(project, lines, message):
    """A pattern, two notebooks of one name, and remote baselines are refused."""
    with pytest.raises(ConfigError, match=message):
        load_plan(project.configure(*lines), fetches=False)


def test_handlers_that_are_missing_or_silent_are_told(shelf, storage, tmp_path, monkeypatch):
    """No handler, a library that is not installed, an answer that is no notebook, and no answer."""
    with pytest.raises(
        ConfigError, match=r"'ftp://host/a\.ipynb' cannot be reached: papermill has no handler"
    ):
        fetch("ftp://host/a.ipynb", tmp_path)
    with pytest.raises(
        ConfigError, match=r"'gs://b/a\.ipynb': The gcsfs optional dependency is missing\. .*pip"
    ):
        fetch("gs://b/a.ipynb", tmp_path)
    storage.files["/a.ipynb"] = b'{"a": "page"}'
    with pytest.raises(
        ConfigError, match=r"Cannot read the notebook 'http.*/a\.ipynb': it is JSON, but not a n"
    ):
        fetch(f"{storage.address}/a.ipynb", tmp_path)
    released = threading.Event()
    monkeypatch.setattr(ShelfHandler, "write", lambda self, buf, path: released.wait())
    path = tmp_path / "copy.ipynb"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'shelf://a\.ipynb': it did not answer within 0\.1 s\. Check"):
        send(path, "shelf://a.ipynb", timeout_s=0.1)
    released.set()

"""What a notebook, a file name or a server writes is text in every log and report, and never a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hostile_logs import HOSTILE, breaches, character_breaches, log_breaches
from markdown_it import MarkdownIt

FILE_NAMES = [
    "e\n::error::x",
    "::add-mask::y",
    "##[error]z",
    "esc\x1b[2J\u202egnp",
    "sep\u2028::error::a\x85\x0b::error::b",
    "'$(touch owned)'",
    "<img src=x>&\"'",
]


def write_notebook(folder: Path, name: str, *sources: str, outputs: Any = (), **metadata: Any) -> None:
    cells = [nbformat.v4.new_code_cell(source, id=f"c{number}") for number, source in enumerate(sources)]
    if outputs:
        cells[0].outputs, cells[0].execution_count = [nbformat.from_dict(one) for one in outputs], 1
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "nb"
    folder.mkdir()
    (root / "pyproject.toml").write_text('[tool.research_kit.regression]\nnotebooks = ["nb/*.ipynb"]\n')
    raises = f"H = {HOSTILE!r}\nprint(H)\nraise type('Bad' + H.replace('\\0', ''), (Exception,), {{}})(H)"
    write_notebook(folder, "raises", f"'''{HOSTILE}'''", raises)
    shown = f"from IPython.display import display\ndisplay({{'text/plain': {HOSTILE!r}}}, raw=True)"
    saved = {"output_type": "display_data", "metadata": {}, "data": {"text/plain": HOSTILE[::-1]}}
    write_notebook(folder, "differs", shown, outputs=[saved])
    key = {"output_type": "display_data", "metadata": {}, "data": {f"text/{HOSTILE}": "a"}}
    write_notebook(folder, "keys", "1", outputs=[key])
    write_notebook(folder, "kernel", "1", kernelspec={"name": HOSTILE, "display_name": HOSTILE})
    dies = f"import os\nos.write(2, {HOSTILE!r}.encode())\nos.kill(os.getpid(), 9)"
    write_notebook(folder, "dies", dies)
    (folder / "unreadable.ipynb").write_text(HOSTILE)
    write_notebook(folder, "half", f"'{chr(0xD83D)}'")
    parameters = {"parameters": {"x": HOSTILE}}
    write_notebook(folder, "asks", "1", research_kit=parameters)
    twice = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", id="a") for _ in "12"])
    text = json.dumps(twice).replace('"id": "a"', '"id": "##vso[task.complete]"')
    (folder / "twice.ipynb").write_text(text, encoding="utf-8")
    for name in FILE_NAMES:
        write_notebook(folder, name, "1 / 0")
    write_notebook(folder, "passes\n::error::p\x1b[2J", "1")
    write_notebook(folder, os.fsdecode(b"bad\xff"), "1")
    return root


def call(root: Path, *command: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    foreign = ("PYTEST_", "COV_", "LANGFUSE_", "RESEARCH_KIT_", "LC_", "LANG")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ |= {"RESEARCH_KIT_DATA_DIR": str(root / "data"), "LC_ALL": "C.UTF-8", "CI": "true", **more}
    arguments = [sys.executable, *command]
    return subprocess.run(arguments, cwd=root, env=environ, capture_output=True, timeout=300, check=False)


def call_pytest(root: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    disabled = ("asyncio", "pytest_cov", "nbmake", "nbval", "schemathesis", "hypothesispytest")
    plugins = [word for name in disabled for word in ("-p", f"no:{name}")]
    return call(root, "-m", "pytest", *plugins, *options)


def assert_clean(done: subprocess.CompletedProcess[bytes]) -> None:
    assert log_breaches(done.stdout) == []
    assert log_breaches(done.stderr) == []
    assert b"Traceback" not in done.stderr


@pytest.fixture(scope="module")
def tested(project: Path) -> subprocess.CompletedProcess[bytes]:
    command = ("-m", "research_kit.cli", "test", "--junit-xml", "j.xml", "--html", "h.html")
    summary = str(project / "summary.md")
    return call(project, *command, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=summary)


def test_the_log_of_the_command_holds_no_command(tested: subprocess.CompletedProcess[bytes]) -> None:
    """`research-kit test` over hostile notebooks and file names: each is told, and is only text."""
    assert_clean(tested)
    assert tested.returncode == 1
    text = tested.stdout.decode()
    for shown in (r"e\n::error::x", r"\::add-mask::y", r"#\#[error]z", r"esc\x1b[2J\u202egnp", r"bad\udcff"):
        assert shown in text
    assert "  | ::add-mask::true" in text
    assert {line[:4] for line in text.splitlines() if line.endswith("forged")} <= {"  | "}
    annotated = [line for line in text.splitlines() if line.startswith("::error ")]
    assert len(annotated) == text.count("\n========")


def test_reports_of_the_command_hold_only_text(
    project: Path, tested: subprocess.CompletedProcess[bytes]
) -> None:
    """JUnit XML, page and summary can be read, and nothing in them is markup of a notebook."""
    cases = ET.parse(project / "j.xml").getroot().findall(".//testcase")
    assert len(cases) == len(list((project / "nb").iterdir()))
    for case in cases:
        assert [found for node in case.iter() for found in breaches("".join(node.itertext()))] == []
        values = [value for node in case.iter() for value in node.attrib.values()]
        assert [found for value in values for found in breaches(value)] == []
    assert_page_is_inert((project / "h.html").read_text(encoding="utf-8"))
    assert_summary_is_inert((project / "summary.md").read_text(encoding="utf-8"))


def test_what_is_kept_can_be_read_back(project: Path, tested: subprocess.CompletedProcess[bytes]) -> None:
    """The history has a line per run, whatever the messages hold."""
    lines = (project / ".research_kit" / "runs" / "history.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= len(list((project / "nb").iterdir())) - 2
    assert [found for row in rows for found in breaches(row["message"])] == []


def test_list_and_run_print_only_text(project: Path) -> None:
    """So do the commands that list runs, execute one, and refuse one; also where the terminal is ASCII."""
    assert_clean(call(project, "-m", "research_kit.cli", "test", "--list"))
    copy = str(project / "copy\n::error::x.ipynb")
    assert_clean(call(project, "-m", "research_kit.cli", "run", "nb/raises.ipynb", "--output", copy))
    assert_clean(call(project, "-m", "research_kit.cli", "test", "nb/none\n::error::x.ipynb"))
    ascii_only = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    for command in (("test", "--list"), ("test", "half", "bad*", "asks"), ("run", "nb/half.ipynb")):
        done = call(project, "-m", "research_kit.cli", *command, **ascii_only)
        assert_clean(done)
        assert done.stdout.isascii()


@pytest.mark.parametrize("folder", [".", "nb"])
def test_the_log_of_pytest_holds_no_command(project: Path, folder: str) -> None:
    """pytest over the same project: progress, failures, sections, summary and ids, wherever it starts."""
    reports = ["--junit-xml", "j2.xml", "--rk-html", "h2.html", "--rk-markdown", "m2.md"]
    more = ["-vv", "--durations=0"] if folder == "nb" else []
    done = call_pytest(
        project / folder, "-rA", "-p", "no:cacheprovider", "--log-level=DEBUG", *reports, *more
    )
    assert done.returncode == 1, done.stdout[-2000:]
    assert_clean(done)
    assert b"forged" in done.stdout
    ET.parse(project / folder / "j2.xml")
    assert_page_is_inert((project / folder / "h2.html").read_text(encoding="utf-8"))
    assert_summary_is_inert((project / folder / "m2.md").read_text(encoding="utf-8"))


def test_collecting_and_workers_of_pytest_are_safe_too(project: Path) -> None:
    """The tree of what is collected has plain names, and names that are no text cross to workers."""
    done = call_pytest(project, "--collect-only")
    assert done.returncode == 0
    assert_clean(done)
    done = call_pytest(project, "-n", "2", "-k", "bad or half or asks", "--rk-markdown", "m3.md")
    assert_clean(done)
    assert done.returncode == 1


def test_faults_of_a_command_are_text(tmp_path: Path) -> None:
    """A warning, a log message and a traceback on standard error go the same way as what a command prints."""
    code = (
        "import logging, sys, warnings\n"
        "from research_kit.cli.commands import main\n"
        "main(['store', 'path'])\n"
        f"H = {HOSTILE!r}\n"
        "warnings.warn(H)\nlogging.getLogger('x').warning(H)\nsys.stderr.write(H)\nsys.stderr.flush()\n"
        "sys.stderr.write('##'); sys.stderr.flush(); sys.stderr.write('[error]x\\n')\n"
        "raise OSError(H)\n"
    )
    done = call(tmp_path, "-c", code)
    assert done.returncode == 1
    assert log_breaches(done.stderr) == []
    assert b"OSError: boom" in done.stderr


def test_commands_about_settings_print_only_text(tmp_path: Path) -> None:
    """A data folder, keys and addresses with odd names are shown as text."""
    folders = [str(tmp_path / FILE_NAMES[0]), str(tmp_path / "##[error]\x1b[2J\u202e")]
    for command in (["status"], ["doctor"], ["store", "path"], ["store", "status", "--json"]):
        for folder in folders:
            done = call(tmp_path, "-m", "research_kit.cli", *command, RESEARCH_KIT_DATA_DIR=folder)
            assert_clean(done)
    assert json.loads(done.stdout)["path"].startswith(folders[-1])


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_page_is_inert(page: str) -> None:
    """The page has its own script and no other, and no attribute that runs or loads."""
    tags = _Tags()
    tags.feed(page)
    assert [tag for tag, _ in tags.seen].count("script") == 1
    assert [name for _, attrs in tags.seen for name in attrs if name.startswith("on")] == []
    loading = [attrs[name] for _, attrs in tags.seen for name in ("src", "href") if name in attrs]
    safe = ("data:image/png;base64,", "http://127.0.0.1:")
    assert [value for value in loading if not str(value).startswith(safe)] == []
    assert character_breaches(page) == []


def assert_summary_is_inert(text: str) -> None:
    """The table is whole, and what stands in it is no link, picture, markup or mention."""
    assert breaches(text) == []
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    tokens = [token for block in parser.parse(text) for token in (block, *(block.children or ()))]
    live = {"link_open", "image", "html_block", "strong_open", "em_open", "code_inline"}
    assert {token.type for token in tokens} & live == set()
    markup = {token.content for token in tokens if token.type == "html_inline"}
    assert markup <= {"<code>", "</code>"}
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(row.split("|")) for row in rows} <= {6}
    assert not re.search(r"@\w|https?://|www\.", text)

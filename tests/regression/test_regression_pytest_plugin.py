"""The pytest plugin, used as its users do."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import nbformat
import pytest

import research_kit.regression
from research_kit.regression import check_notebook, load_plan

NOTEBOOKS = 'notebooks = ["notebooks/*.ipynb"]'
VOLATILE = "import datetime, uuid\nprint(datetime.datetime.now(), uuid.uuid4(), object())"


def run_many(project):
    """One parallel pytest run over a project whose notebooks go wrong in different ways."""
    project.notebook("good", VOLATILE)
    project.notebook("raising", "print('start')", "1 / 0")
    project.notebook("asking", "size = 1", "print(size)\nassert size < 3", tags={0: ["parameters"]})
    project.notebook("unreadable", "1").write_text("<<<<<<< ours", encoding="utf-8")
    path = project.notebook("changed", "print('mean', 0.75)", VOLATILE)
    expected = nbformat.read(path, as_version=4)
    for cell, text in zip(
        expected.cells, ["mean 0.5\n", "<timestamp> <uuid> <object object at <address>>\n"], strict=True
    ):
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    project.root.joinpath("expected").mkdir()
    nbformat.write(expected, project.root / "expected" / "changed.json")
    project.configure(
        NOTEBOOKS,
        'expected_dir = "expected"',
        "cell_timeout_s = 60",
        "[tool.research_kit.regression.parameter_sets.asking.small]",
        "size = 2",
        "[tool.research_kit.regression.parameter_sets.asking.large]",
        "size = 3",
    )
    return project, project.pytest("notebooks", "-n", "2", "--junit-xml", "junit.xml")


def assert_runs_all_notebooks_in_parallel(many):
    """Each notebook and parameter set is one test; one that cannot be read does not stop the others."""
    _, done = many
    assert done.returncode == 1, done.stdout + done.stderr
    assert "4 failed, 2 passed" in done.stdout
    for nodeid in (
        "raising.ipynb::run",
        "asking.ipynb::run[large]",
        "unreadable.ipynb::run",
        "changed.ipynb::run",
    ):
        assert f"FAILED notebooks/{nodeid}" in done.stdout


def assert_shows_cell_error_and_copy(many):
    """A failure shows the cell, the exception and the executed copy, and nothing of pytest's own."""
    project, done = many
    assert "failed: ZeroDivisionError: division by zero" in done.stdout
    assert "notebooks/raising.ipynb, In [2], cell 2 of the notebook:\n  | 1 / 0\n" in done.stdout
    assert "Executed copy: .research_kit/runs/raising.ipynb" in done.stdout
    assert "notebooks/asking.ipynb [large], In [3], cell 2 of the notebook:" in done.stdout
    assert "not started: Cannot read the notebook" in done.stdout
    assert "pluggy" not in done.stdout
    copies = {path.stem for path in (project.root / ".research_kit" / "runs").glob("*.ipynb")}
    assert copies == {"good", "raising", "changed", "asking.small", "asking.large"}


def assert_shows_a_readable_difference(many):
    """A changed number is shown with its cell; timestamps, ids and addresses are no differences."""
    _, done = many
    assert "outputs differ from the baseline expected/changed.json" in done.stdout
    assert (
        "In [1], cell 1 of the notebook:\n  | print('mean', 0.75)\n\nstdout:\n  | --- expected" in done.stdout
    )
    assert "  | -mean 0.5\n  | +mean 0.75\n" in done.stdout
    assert done.stdout.count("--- expected") == 1
    assert "If the new outputs are right: pytest notebooks/changed.ipynb --rk-accept" in done.stdout


def assert_says_what_was_not_compared(many):
    """Notebooks without a baseline are named in the summary, also when workers ran them."""
    _, done = many
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("research-kit: no baseline")]
    assert "asking.small" in line
    assert "good" in line
    assert "changed" not in line


def assert_writes_junit_and_ignores_its_copies(many):
    """JUnit XML has one case per run, with the executed copy as a property; git sees no copies."""
    project, _ = many
    cases = ET.parse(project.root / "junit.xml").getroot().findall(".//testcase")
    assert sorted(case.get("name") for case in cases) == [
        "run",
        "run",
        "run",
        "run",
        "run[large]",
        "run[small]",
    ]
    values = [prop.get("value") for case in cases for prop in case.iter("property")]
    assert str(project.root / ".research_kit" / "runs" / "good.ipynb") in values
    assert (project.root / ".research_kit" / "runs" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_plugin_on_a_whole_project(project):
    """A parallel run over notebooks that go wrong in different ways; one run, because kernels are slow."""
    many = run_many(project)
    assert_runs_all_notebooks_in_parallel(many)
    assert_shows_cell_error_and_copy(many)
    assert_shows_a_readable_difference(many)
    assert_says_what_was_not_compared(many)
    assert_writes_junit_and_ignores_its_copies(many)


def test_plugin_accepts_what_passes(project):
    """Accepting writes the baseline of a run that passed, of no other, and the next run equals it."""
    project.configure(NOTEBOOKS, 'expected_dir = "expected"')
    project.notebook("first", "print('mean', 0.5)", VOLATILE)
    project.notebook("second", "1 / 0")
    accepted = project.pytest("notebooks", "--rk-accept", "--rk-output-dir", "copies", "-W", "error")
    assert "1 failed, 1 passed" in accepted.stdout, accepted.stdout + accepted.stderr
    assert f"research-kit: 1 baseline(s) written: {project.root}/expected/first.json" in accepted.stdout
    assert "no baseline" not in accepted.stdout
    assert [path.name for path in (project.root / "expected").iterdir()] == ["first.json"]
    assert (project.root / "copies" / "first.ipynb").exists()
    assert not (project.root / ".research_kit").exists()

    plan = load_plan(project.root)
    again = check_notebook(plan.notebooks[0], plan)
    assert (again.is_passed, again.expected_from) == (True, "baseline")
    before = plan.notebooks[0].baseline_path.read_bytes()
    check_notebook(plan.notebooks[0], plan, accept=True)
    assert plan.notebooks[0].baseline_path.read_bytes() == before


def test_plugin_leaves_other_projects_alone(project):
    """Without the table nothing is collected, and nothing heavy is imported."""
    project.notebook("first", "1 / 0")
    project.root.joinpath("test_light.py").write_text(
        "import sys\n\ndef test_light():\n"
        "    heavy = {'papermill', 'nbformat', 'nbval', 'pandas', 'dspy', 'langfuse', 'jupyter_client'}\n"
        "    assert not heavy & set(sys.modules)\n",
        encoding="utf-8",
    )
    done = project.pytest()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_plugin_ignores_notebooks_outside_the_plan(project):
    """Only the notebooks that the plan names are tests, and collecting them opens none."""
    project.notebook("first", "1").write_text("not read yet", encoding="utf-8")
    project.notebook("drafts/second", "1")
    project.configure(NOTEBOOKS)
    done = project.pytest(".", "--collect-only", "-q")
    assert done.stdout.splitlines()[0] == "notebooks/first.ipynb::run"
    assert "second" not in done.stdout


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["serial", "parallel"])
def test_plugin_reports_a_wrong_plan_once(project, arguments):
    """A plan that cannot be used is one clear error, not one per notebook."""
    project.notebook("first", "1")
    project.notebook("second", "1")
    project.configure(NOTEBOOKS, "cell_timeout = 3")
    done = project.pytest("notebooks", *arguments)
    assert done.returncode != 0
    assert "cell_timeout in [tool.research_kit.regression]" in done.stdout
    assert "1 error in" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "_refuse" not in done.stdout


def test_plugin_leaves_notebooks_to_nbval_when_asked(project):
    """With --nbval the notebooks are nbval's, cell by cell."""
    project.notebook("first", "1")
    project.configure(NOTEBOOKS)
    done = project.pytest("notebooks", "--nbval", "--collect-only", "-q")
    assert "first.ipynb::Cell 0" in done.stdout
    assert "::run" not in done.stdout


def test_package_is_lazy():
    """Importing the package and the plugin loads neither papermill nor nbval; every name resolves."""
    code = (
        "import sys, research_kit.regression, research_kit.regression.pytest_plugin\n"
        "assert not {'papermill', 'nbval', 'nbformat', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert all(getattr(research_kit.regression, name) for name in research_kit.regression.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = research_kit.regression.nothing

"""The table [tool.research_kit.regression]."""

from __future__ import annotations

from pathlib import Path

import pytest

from research_kit.errors import ConfigError
from research_kit.regression import DEFAULT_SANITIZERS, find_plan, load_plan

NOTEBOOKS = 'notebooks = ["notebooks/*.ipynb"]'


def test_load_plan_fills_in_defaults(project):
    """A table that only names notebooks is complete."""
    path = project.notebook("first", "1")
    plan = load_plan(project.configure(NOTEBOOKS))
    assert [one.path for one in plan.notebooks] == [path]
    assert plan.notebooks[0].baseline_path == project.root / "tests" / "notebooks" / "first.json"
    assert plan.notebooks[0].name == "first"
    assert (plan.cell_timeout_s, plan.notebook_timeout_s) == (120.0, 600.0)
    assert plan.output_dir == project.root / ".research_kit" / "runs"
    assert (plan.is_warm, plan.preload) == (True, None)
    assert plan.sanitizers == DEFAULT_SANITIZERS


def test_load_plan_accepts_the_folder_and_every_setting(project):
    """Every documented setting reaches the plan."""
    project.notebook("first", "1")
    project.notebook("second", "1")
    project.root.joinpath("nbval.cfg").write_text("regex: a+\nreplace: A\n", encoding="utf-8")
    project.configure(
        NOTEBOOKS,
        'expected_dir = "expected"',
        'output_dir = "copies"',
        "warm_kernels = false",
        'preload = ["sqlite3"]',
        "cell_timeout_s = 5",
        "notebook_timeout_s = 7.5",
        'default_sanitizers = ["uuids"]',
        'sanitize = [{regex = "run (\\\\d+)", replace = "run N"}]',
        'sanitize_with = "nbval.cfg"',
        "[tool.research_kit.regression.parameters.second]",
        "size = 1",
        "[tool.research_kit.regression.parameter_sets.second.small]",
        "[tool.research_kit.regression.parameter_sets.second.large]",
        "size = 9",
    )
    plan = load_plan(project.root)
    assert [(one.name, dict(one.parameters)) for one in plan.notebooks] == [
        ("first", {}),
        ("second.small", {"size": 1}),
        ("second.large", {"size": 9}),
    ]
    assert plan.notebooks[1].baseline_path == project.root / "expected" / "second.small.json"
    assert (plan.cell_timeout_s, plan.notebook_timeout_s) == (5.0, 7.5)
    assert (plan.is_warm, plan.preload) == (False, ("sqlite3",))
    assert [(one.name, one.replace) for one in plan.sanitizers] == [
        ("sanitize[1]", "run N"),
        ("nbval.cfg[1]", "A"),
        ("uuids", "<uuid>"),
    ]


def test_load_plan_leaves_checkpoints_out(project):
    """The copies that Jupyter keeps beside a notebook are no tests."""
    path = project.notebook("first", "1")
    project.notebook(".ipynb_checkpoints/first-checkpoint", "1")
    plan = load_plan(project.configure('notebooks = ["notebooks/**/*.ipynb"]'))
    assert [one.path for one in plan.notebooks] == [path]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cell_timeout = 3", NOTEBOOKS], r"^cell_timeout in .* is not a setting\. Use one of: notebooks, "),
        ([], r"notebooks in .* names no notebook\. Write it as"),
        (["notebooks = 3"], r"notebooks in .* is 3, which is not a list of texts"),
        (['notebooks = "notebooks/*.ipynb"'], r"which is not a list of texts"),
        (
            ['notebooks = ["notbooks/*.ipynb"]'],
            r"'notbooks/\*\.ipynb', which matches no \.ipynb file\. Correct",
        ),
        (['notebooks = ["/tmp/*.ipynb"]'], r"'/tmp/\*\.ipynb': .*Give a path relative"),
        (
            [NOTEBOOKS, "cell_timeout_s = true"],
            r"cell_timeout_s in .* is True, which is not a positive number",
        ),
        ([NOTEBOOKS, "cell_timeout_s = 0"], r"is 0, which is not a positive number of seconds"),
        ([NOTEBOOKS, "notebook_timeout_s = inf"], r"notebook_timeout_s in .* is inf, which is not"),
        ([NOTEBOOKS, "expected_dir = 1"], r"expected_dir in .* is 1, which is not a text"),
        (
            [NOTEBOOKS, 'sanitize = [{regex = "("}]'],
            r"sanitize in .* which is not a pair of texts\. Write it as",
        ),
        (
            [NOTEBOOKS, 'sanitize = [{regex = "(", replace = ""}]'],
            r"sanitize\[1\] .* regex '\(' .*Correct the reg",
        ),
        (
            [NOTEBOOKS, 'sanitize = [{regex = "a", replace = "\\\\9"}]'],
            r"replace '\\\\9': .*Correct the regular",
        ),
        ([NOTEBOOKS, 'sanitize_with = "gone.cfg"'], r"gone\.cfg', which cannot be read: .*Give the path"),
        ([NOTEBOOKS, 'default_sanitizers = ["dates"]'], r"'dates', which does not exist\. Use: uuids, "),
        (
            [NOTEBOOKS, "[tool.research_kit.regression.parameters.frist]"],
            r"'frist', which is no notebook .*first",
        ),
        (
            [NOTEBOOKS, "[tool.research_kit.regression.parameters]", "first = 1"],
            r"first = 1, which is not a table",
        ),
        (
            [NOTEBOOKS, "[tool.research_kit.regression.parameter_sets.first]", "a = 1"],
            r"a = 1, which is not a table",
        ),
        (
            [NOTEBOOKS, '[tool.research_kit.regression.parameter_sets.first."a/b"]'],
            r"the name 'a/b'\. Use letters",
        ),
    ],
)
def test_load_plan_refuses(project, lines, message):
    """What cannot be used is refused with the key, the value and the remedy."""
    project.notebook("first", "1")
    with pytest.raises(ConfigError, match=message):
        load_plan(project.configure(*lines))


def test_load_plan_refuses_two_notebooks_of_one_name(project):
    """Baselines are found by name, so names are unique."""
    project.notebook("a/first", "1")
    project.notebook("b/first", "1")
    with pytest.raises(ConfigError, match=r"would have the same name\. Rename one of them"):
        load_plan(project.configure('notebooks = ["notebooks/*/*.ipynb"]'))


def test_load_plan_without_file_or_table(tmp_path):
    """A missing file and a missing table say what to add."""
    with pytest.raises(ConfigError, match=r"there is no such file\. Add \[tool"):
        load_plan(tmp_path)
    tmp_path.joinpath("pyproject.toml").write_text("[project]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no table \[tool\.research_kit\.regression\]"):
        load_plan(tmp_path)
    tmp_path.joinpath("pyproject.toml").write_text("[tool.research_kit]\nregression = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is 1, which is not a table"):
        load_plan(tmp_path)
    tmp_path.joinpath("pyproject.toml").write_text("[tool", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Cannot read .* Correct the file"):
        load_plan(tmp_path)


def test_find_plan_looks_upwards(project, tmp_path: Path):
    """The nearest pyproject.toml with the table counts, from any folder below it."""
    project.notebook("deep/first", "1")
    pyproject = project.configure('notebooks = ["notebooks/deep/*.ipynb"]')
    nearer = tmp_path / "notebooks" / "pyproject.toml"
    nearer.write_text("[project]\n", encoding="utf-8")
    assert find_plan(tmp_path / "notebooks" / "deep") == pyproject

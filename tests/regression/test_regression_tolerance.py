"""Numbers that may differ a little."""

from __future__ import annotations

import pandas as pd
import pytest
from nbformat import v4

from research_kit.errors import ConfigError
from research_kit.regression import compare_notebooks, load_plan
from research_kit.regression.tolerance import is_within


def table(*values: float) -> str:
    return pd.DataFrame({"name": [f"row{n}" for n in range(len(values))], "mean": values}).to_string()


def page(*values: float) -> str:
    return pd.DataFrame({"mean": values}).to_html()


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("mean 0.5", "mean 0.5004"),
        ("-1e-3 and 1,000", "-1.0001e-3 and 1,000"),
        ("loss=0.0", "loss=0.0009"),
        ("[1.0, 2.0]", "[1.0001, 2]"),
        (table(1.5, 200.25), table(1.5001, 200.25001)),
        (page(0.125, 3.0), page(0.12501, 3.0)),
        ('{"p50": 12.5}', '{"p50": 12.501}'),
    ],
    ids=["text", "exponent", "zero", "list", "table", "html", "json"],
)
def test_is_within_accepts_small_differences(expected, actual):
    """One part in a thousand is nothing, however the number is written and wherever it stands."""
    assert is_within(expected, actual, 1e-3)
    assert is_within(actual, expected, 1e-3)
    assert not is_within(expected, actual, 1e-12)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("mean 0.5", "mean 0.505"),
        ("mean 0.5", "median 0.5"),
        ("1.5", "-1.5"),
        ("1.5", "nan"),
        ("row1 2.0", "row2 2.0"),
        ("version 1.2.3", "version 1.2.4"),
        ("2026-11-24", "2026-11-25"),
        ("12 s", "12 ms"),
        ("3 rows", "3 rows\n4 rows"),
        (table(1.5, 2.5), table(1.5)),
        (table(1.5, 2.5), table(2.5, 1.5)),
        ("0xff12", "0xff13"),
    ],
)
def test_is_within_refuses_what_is_different(expected, actual):
    """Words, names, dates, signs, missing rows and differences above the tolerance are differences."""
    assert not is_within(expected, actual, 1e-3)
    assert not is_within(actual, expected, 1e-3)


def notebook(text: str, *tags: str):
    cell = v4.new_code_cell("1", id="one", outputs=[v4.new_output("stream", text=text)])
    cell.metadata["tags"] = list(tags)
    return v4.new_notebook(cells=[cell])


def test_compare_notebooks_applies_the_tolerance_of_plan_and_cell():
    """Without a tolerance every digit counts; the tag of a cell wins over the plan."""
    before, after = notebook("mean 0.5"), notebook("mean 0.5004")
    assert compare_notebooks(before, after)
    assert not compare_notebooks(before, after, tolerance=1e-3)
    assert not compare_notebooks(before, notebook("mean 0.5004", "rk-tolerance=1e-3"))
    assert compare_notebooks(before, notebook("mean 0.5004", "rk-tolerance=0"), tolerance=1e-3)


def test_compare_notebooks_refuses_a_tolerance_that_is_no_number():
    """A tag with a typing mistake is an error, not a test that never fails."""
    with pytest.raises(ConfigError, match=r"'rk-tolerance=1%' has no usable tolerance. Write it as"):
        compare_notebooks(notebook("1"), notebook("2", "rk-tolerance=1%"))


def test_plan_reads_the_tolerance(project):
    """The setting is a number from 0 to 1."""
    project.notebook("first", "1")
    notebooks = 'notebooks = ["notebooks/*.ipynb"]'
    assert load_plan(project.configure(notebooks)).tolerance == 0
    assert load_plan(project.configure(notebooks, "tolerance = 1e-6")).tolerance == 1e-6
    with pytest.raises(ConfigError, match=r"tolerance .*is '1%', which is not a number from 0 to 1"):
        load_plan(project.configure(notebooks, 'tolerance = "1%"'))

"""What is committed beside a notebook holds no secret."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from research_kit.masking import masked_text
from research_kit.regression import check_notebook, load_plan

KEY = "sk-proj-" + "a1B2" * 12
SOURCE = f"""
from IPython.display import display
import os
print("key", os.environ["OPENAI_API_KEY"])
display({{"application/json": {{"nested": [{{"key": "{KEY}"}}]}}, "text/plain": "{KEY}"}}, raw=True)
"""


def test_an_accepted_secret_is_masked_and_compares_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline of a notebook that prints its key has no key, and the next run with another key passes."""
    cells = [nbformat.v4.new_markdown_cell("# Title", id="m1"), nbformat.v4.new_code_cell(SOURCE, id="c1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "prints.ipynb")
    table = '[tool.research_kit.regression]\nnotebooks = ["prints.ipynb"]\nexpected_dir = "expected"\n'
    (tmp_path / "pyproject.toml").write_text(table)
    plan = load_plan(tmp_path)
    (planned,) = plan.notebooks
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-" + "c3D4" * 12)
    assert masked_text(KEY) != KEY
    assert check_notebook(planned, plan, accept=True).is_passed
    baseline = (tmp_path / "expected" / "prints.json").read_text(encoding="utf-8")
    assert KEY not in baseline
    assert "c3D4c3D4" not in baseline
    assert [cell["outputs"] for cell in json.loads(baseline)["cells"]] != [[]]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-" + "e5F6" * 12)
    again = check_notebook(planned, plan)
    assert again.is_passed, again.differences
    assert again.expected_from == "baseline"

"""Expected outputs against actual outputs, without kernels."""

from __future__ import annotations

import copy
import time

import nbformat
import pytest

from research_kit.errors import ConfigError
from research_kit.regression import (
    DEFAULT_SANITIZERS,
    NotebookPlan,
    Sanitizer,
    compare_notebooks,
    find_expectation,
    write_baseline,
)
from research_kit.regression.documents import read_notebook


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def result(**data):
    keys = {"plain": "text/plain", "html": "text/html", "png": "image/png", "json": "application/json"}
    return nbformat.v4.new_output("execute_result", {keys[name]: value for name, value in data.items()})


def error(name="ValueError", value="bad"):
    return nbformat.v4.new_output("error", ename=name, evalue=value, traceback=["somewhere"])


def notebook(*cells, ids=True, tags=()):
    """A notebook with one executed code cell per list of outputs."""
    made = [
        nbformat.v4.new_code_cell(
            f"cell {n}", id=f"id-{n}", outputs=copy.deepcopy(outputs), execution_count=n + 1
        )
        for n, outputs in enumerate(cells)
    ]
    for cell in made:
        cell.metadata["tags"] = list(tags)
        if not ids:
            del cell["id"]
    return nbformat.v4.new_notebook(cells=made, nbformat_minor=5 if ids else 4)


TABLE = "   x    y\n0  1  0.5\n1  2  0.7"
OUTPUTS = [
    stream("mean 2.0\nrows 10\n"),
    result(plain=TABLE, html="<td>0.7</td>"),
    stream("careful\n", "stderr"),
]

SEEDED = {
    "changed number": (OUTPUTS[0], stream("mean 2.1\nrows 10\n"), ["stdout"]),
    "last digit": (stream("0.30000000000000004\n"), stream("0.3\n"), ["stdout"]),
    "changed sign": (stream("-1\n"), stream("1\n"), ["stdout"]),
    "missing line": (OUTPUTS[0], stream("mean 2.0\n"), ["stdout"]),
    "additional line": (OUTPUTS[0], stream("mean 2.0\nrows 10\nextra\n"), ["stdout"]),
    "changed cell of a table": (
        OUTPUTS[1],
        result(plain=TABLE.replace("0.7", "0.8"), html="<td>0.8</td>"),
        ["text/plain", "text/html"],
    ),
    "reordered rows": (result(plain="a\nb"), result(plain="b\na"), ["text/plain"]),
    "lost output": (OUTPUTS[0], None, ["stdout"]),
    "new output": (None, OUTPUTS[0], ["stdout"]),
    "new warning": (OUTPUTS[0], [OUTPUTS[0], stream("DeprecationWarning\n", "stderr")], ["stderr"]),
    "stream changed sides": (stream("x"), stream("x", "stderr"), ["stdout", "stderr"]),
    "other exception": (error(), error("KeyError"), ["ename"]),
    "other message": (error(), error(value="worse"), ["evalue"]),
    "no exception any more": (error(), None, ["ename", "evalue"]),
    "other JSON": (result(json={"a": 1}), result(json={"a": 2}), ["application/json"]),
    "second table": (OUTPUTS[1], [OUTPUTS[1], OUTPUTS[1]], ["text/plain", "text/html"]),
    "changed file name": (stream("/tmp/a1/out.csv"), stream("/tmp/a1/other.csv"), ["stdout"]),
    "changed whitespace": (stream("a  b"), stream("a b"), ["stdout"]),
    "changed end": (stream("a\n"), stream("a"), ["stdout"]),
}
HARMLESS = {
    "timestamp": (stream("2026-01-02 03:04:05"), stream("2027-11-12 13:14:15.5")),
    "address": (result(plain="<A at 0x7f13d92e1980>"), result(plain="<A at 0x10aa>")),
    "duration": (stream("took 0.123 s"), stream("took 12.4 s")),
    "session": (
        stream("jupyter-0f8fad5b-d9cb-469f-a165-70867728950e"),
        stream("jupyter-7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    ),
    "temporary folder": (stream("/tmp/a1/out.csv"), stream("/tmp/b2/out.csv")),
    "port": (stream("http://localhost:8080/x"), stream("http://localhost:9091/x")),
    "image": (result(plain="<Figure>", png="aaaa"), result(plain="<Figure>", png="bbbb")),
    "split stream": (stream("ab\n"), [stream("a"), stream("b\n")]),
    "interleaved streams": (
        [stream("a"), stream("w", "stderr"), stream("b")],
        [stream("ab"), stream("w", "stderr")],
    ),
    "overwritten progress": (stream("10%\r100%\n"), stream("10%\r50%\r100%\n")),
    "warning file": (
        stream("/tmp/ipykernel_1/2.py:1: W", "stderr"),
        stream("/tmp/ipykernel_3/4.py:1: W", "stderr"),
    ),
    "traceback": (
        error(),
        nbformat.v4.new_output("error", ename="ValueError", evalue="bad", traceback=["else"]),
    ),
    "execution count": (
        result(plain="1"),
        nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=7),
    ),
}


def as_list(outputs):
    return [] if outputs is None else outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.parametrize(("expected", "actual", "keys"), SEEDED.values(), ids=SEEDED)
def test_compare_finds(expected, actual, keys):
    """A change of meaning in an otherwise equal notebook is found, with its cell and its kind."""
    found = compare_notebooks(notebook(OUTPUTS, as_list(expected)), notebook(OUTPUTS, as_list(actual)))
    assert [difference.output_key for difference in found] == keys
    assert {difference.cell_index for difference in found} == {1}
    assert {difference.execution_count for difference in found} == {2}
    assert all(difference.diff for difference in found)


@pytest.mark.parametrize(("expected", "actual"), HARMLESS.values(), ids=HARMLESS)
def test_compare_passes_over(expected, actual):
    """A change without meaning is no difference, in either direction."""
    one, other = notebook(OUTPUTS, as_list(expected)), notebook(OUTPUTS, as_list(actual))
    assert compare_notebooks(one, other) == ()
    assert compare_notebooks(other, one) == ()


def test_compare_does_not_change_its_arguments():
    """Both notebooks are as before, although nbval joins streams in place."""
    expected, actual = notebook([stream("a"), stream("b")]), notebook([stream("a"), stream("c")])
    before = copy.deepcopy((expected, actual))
    assert compare_notebooks(expected, actual)
    assert (expected, actual) == before


def test_compare_diff_shows_expected_as_minus():
    """What was lost is marked with -, what came with +."""
    (difference,) = compare_notebooks(notebook([stream("a\nold\nz\n")]), notebook([stream("a\nnew\nz\n")]))
    assert difference.diff.splitlines() == [
        "--- expected",
        "+++ actual",
        "@@ -1,3 +1,3 @@",
        " a",
        "-old",
        "+new",
        " z",
    ]
    assert (difference.expected, difference.actual) == ("a\nold\nz\n", "a\nnew\nz\n")
    (lost,) = compare_notebooks(notebook([stream("a")]), notebook([]))
    assert lost.diff.splitlines()[:2] == ["--- expected", "+++ actual (nothing)"]
    assert lost.actual is None


def test_compare_bounds_long_differences():
    """Two long texts without a common line are described at once and briefly."""
    before, after = ("\n".join(f"{word} {n}" for n in range(20_000)) for word in ("a", "b"))
    started = time.monotonic()
    (difference,) = compare_notebooks(notebook([stream(before)]), notebook([stream(after)]))
    assert time.monotonic() - started < 20
    lines = difference.diff.splitlines()
    assert len(lines) == 61
    assert lines[-1].endswith("more lines of difference")


def test_compare_finds_a_difference_beyond_the_described_part():
    """How much is described does not decide how much is judged."""
    text = "\n".join(str(n) for n in range(5_000))
    (difference,) = compare_notebooks(notebook([stream(f"{text}\n1")]), notebook([stream(f"{text}\n2")]))
    assert difference.diff.splitlines()[-2:] == ["-1", "+2"]


def test_compare_pairs_cells_by_id():
    """A cell inserted above leaves the others paired; new and removed cells are differences of their own."""
    expected = notebook([stream("a")], [stream("b")], [stream("gone")])
    actual = notebook([stream("a")], [stream("b")])
    inserted = nbformat.v4.new_code_cell("more", id="new", outputs=[stream("n")], execution_count=9)
    actual.cells.insert(1, inserted)
    found = compare_notebooks(expected, actual)
    assert [(one.cell_index, one.source, one.expected, one.actual) for one in found] == [
        (1, "more", None, "n"),
        (2, "cell 2", "gone", None),
    ]


def test_compare_pairs_cells_by_order_without_ids():
    """Notebooks from before cell ids are compared in order; text cells and the injected cell do not count."""
    expected, actual = (notebook([stream("a")], [stream(text)], ids=False) for text in ("b", "c"))
    injected = nbformat.v4.new_code_cell("size = 1", metadata={"tags": ["injected-parameters"]}, outputs=[])
    del injected["id"]
    actual.cells.insert(1, injected)
    actual.cells.insert(0, nbformat.v4.new_markdown_cell("text"))
    (difference,) = compare_notebooks(expected, actual)
    assert (difference.cell_index, difference.expected, difference.actual) == (2, "b", "c")


@pytest.mark.parametrize("tag", ["rk-ignore-output", "nbval-ignore-output"])
def test_compare_honours_tags(tag):
    """A cell that is tagged on either side is not compared."""
    plain, tagged = notebook([stream("a")]), notebook([stream("b")], tags=[tag])
    assert compare_notebooks(plain, tagged) == ()
    assert compare_notebooks(tagged, plain) == ()


def test_compare_honours_comments():
    """nbval's comment markers work as in nbval."""
    expected, actual = notebook([stream("a")]), notebook([stream("b")])
    actual.cells[0].source = "# NBVAL_IGNORE_OUTPUT\nprint(1)"
    assert compare_notebooks(expected, actual) == ()


def test_compare_uses_the_given_sanitizers():
    """Own sanitizers replace the defaults."""
    one, other = notebook([stream("run 1 at 0x1f")]), notebook([stream("run 2 at 0x1f")])
    sanitizers = (Sanitizer(name="runs", regex=r"run \d", replace="run N"),)
    assert compare_notebooks(one, other, sanitizers=sanitizers) == ()
    other.cells[0].outputs[0].text = "run 2 at 0x2f"
    assert compare_notebooks(one, other, sanitizers=sanitizers)


def planned(tmp_path):
    return NotebookPlan(
        path=tmp_path / "first.ipynb",
        set_name=None,
        parameters={},
        baseline_path=tmp_path / "expected" / "first.json",
    )


@pytest.mark.parametrize(
    "outputs", [OUTPUTS, [error()], [result(plain="<F>", png="aaaa", json={"a": [1]})], []]
)
def test_baseline_round_trip(tmp_path, outputs):
    """An accepted run equals its own baseline, and accepting it again changes no byte."""
    executed, plan = notebook(outputs), planned(tmp_path)
    path = write_baseline(executed, plan, sanitizers=DEFAULT_SANITIZERS)
    first = path.read_bytes()
    expectation = find_expectation(plan)
    assert (expectation.kind, expectation.path) == ("baseline", path)
    assert compare_notebooks(expectation.notebook, executed) == ()
    write_baseline(executed, plan, sanitizers=DEFAULT_SANITIZERS)
    assert path.read_bytes() == first


def test_baseline_keeps_accidents_images_and_counts_out(tmp_path):
    """A baseline holds only what is compared, so that it changes when a result does."""
    plan, texts = planned(tmp_path), []
    for stamp, picture, count in (("2026-01-02 03:04", "aaaa", 1), ("2027-01-02 03:04", "bbbb", 7)):
        executed = notebook([stream(stamp), result(plain="<F>", png=picture), error(value=stamp)])
        executed.cells[0].execution_count = executed.cells[0].outputs[1].execution_count = count
        executed.cells[0].outputs[2].traceback = [stamp]
        texts.append(
            write_baseline(executed, plan, sanitizers=DEFAULT_SANITIZERS).read_text(encoding="utf-8")
        )
    assert texts[0] == texts[1]
    assert "aaaa" not in texts[0]


def test_baseline_leaves_out_ignored_cells(tmp_path):
    """Outputs that are never compared are not stored."""
    plan = planned(tmp_path)
    path = write_baseline(notebook([stream("secret")], tags=["rk-ignore-output"]), plan, sanitizers=())
    assert "secret" not in path.read_text(encoding="utf-8")
    assert compare_notebooks(read_notebook(path), notebook([stream("other")])) == ()


def test_expectation_falls_back_to_own_outputs_then_to_none(tmp_path):
    """Without a baseline the notebook's own outputs count, apart from cells that were never run."""
    plan = planned(tmp_path)
    own = notebook([stream("a")], [])
    own.cells[1].execution_count = None
    nbformat.write(own, plan.path)
    expectation = find_expectation(plan)
    assert (expectation.kind, expectation.path) == ("own outputs", plan.path)
    assert compare_notebooks(expectation.notebook, notebook([stream("a")], [stream("new")])) == ()
    assert len(compare_notebooks(expectation.notebook, notebook([stream("b")], []))) == 1
    nbformat.write(notebook([]), plan.path)
    assert find_expectation(plan).kind == "none"


def test_expectation_reads_a_baseline_notebook(tmp_path):
    """A notebook with outputs in the folder of expected results is a baseline as well."""
    plan = planned(tmp_path)
    nbformat.write(notebook([]), plan.path)
    plan.baseline_path.parent.mkdir()
    nbformat.write(notebook([stream("a")]), plan.baseline_path.with_suffix(".ipynb"))
    assert find_expectation(plan).kind == "baseline"


def test_expectation_refuses_a_broken_baseline(tmp_path):
    """A baseline that cannot be read is named, with what to do."""
    plan = planned(tmp_path)
    plan.baseline_path.parent.mkdir()
    plan.baseline_path.write_text("<<<<<<< ours", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"Cannot use the baseline .*first\.json.*not valid JSON.*--rk-accept"
    ):
        find_expectation(plan)

"""Exports: what is read back equals what was written, and nothing that was exported runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from hostile import hostile_texts

import research_kit as rk
from research_kit.errors import ConfigError
from research_kit.traces.frames import build_observations
from research_kit.views.table_files import TABLE_FORMS

FORMULA_STARTS = ("=", "+", "-", "@", "|", "%", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
TRICKY = [
    "=1+1", "'=1", "",
    "''@x", "-1", "+cmd|' /C calc'!A0", "a;=1;'=2", ";-x", "\r\n=", "\uff1d1", "'", "a\r\nb",
    "\ufeff", "NA", "null", "1e5", "{", '"', "\u2028",
]  # fmt: skip


def texts() -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in [*hostile_texts(), *TRICKY]]


def hostile_observations() -> pd.DataFrame:
    """Return observations with each text in every place that holds one."""
    rows = [
        {
            "id": f"{number}",
            "traceId": f"{number}",
            "startTime": "2026-01-01T00:00:00.000Z",
            "isRootObservation": True,
            "sessionId": text, "userId": text, "name": text, "model": text, "type": text, "traceName": text,
            "level": "ERROR", "statusMessage": text, "input": text, "output": json.dumps(text),
            "metadata": {text: text},
        }
        for number, text in enumerate(texts())
    ]  # fmt: skip
    return build_observations(rows)


def frames(observations: pd.DataFrame, scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    extra = observations.assign(**{"=cmd": 1.5, "whole": 3, "flag": observations["is_error"].isna()})
    return {
        "observations": observations,
        "without rows": observations.head(0),
        "some rows": observations[observations["type"] == "GENERATION"],
        "scores": scores,
        "costs": rk.cost_by(observations, ["model", "day"]),
        "latencies": rk.latency_summary(observations),
        "messages": rk.roll_up(observations, "messages", scores=scores),
        "columns of one's own": extra,
        "hostile": hostile_observations(),
        "texts": pd.DataFrame({"=x": pd.array([*texts(), None], dtype="string")}),
    }


@pytest.mark.parametrize("form", TABLE_FORMS)
def test_what_is_read_back_equals_what_was_written(
    form: str, observations: pd.DataFrame, scores: pd.DataFrame, tmp_path: Path
) -> None:
    """Columns, order, dtypes, values and attributes are the same, also of empty frames and hostile texts."""
    for name, frame in frames(observations, scores).items():
        frame.attrs["is_truncated"] = True
        path = rk.export(frame, tmp_path / f"{name}{form}")
        back = rk.read_export(path)
        pd.testing.assert_frame_equal(back, frame.reset_index(drop=True), obj=f"{name} as {form}")
        assert back.attrs == {"is_truncated": True}


def test_no_text_of_a_csv_file_begins_as_a_formula(tmp_path: Path) -> None:
    """As spreadsheets read it, with commas or with semicolons, no text and no header is a formula."""
    frame = hostile_observations()[["name", "model", "input", "output"]].rename(columns={"name": "=name"})
    path = rk.export(frame, tmp_path / "texts.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(FORMULA_STARTS)] == []
    parts = [part for cell in cells for part in cell.split(";")[1:]]
    assert [part for part in parts if part.startswith(FORMULA_STARTS)] == []


def test_tables_from_elsewhere_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    """Without a description, known names have their dtypes, and others are texts, which is said."""
    path = tmp_path / "own.csv"
    path.write_text("trace_id,cost_usd,colour\n7,0.5,red\n")
    with pytest.warns(UserWarning, match="'colour' are read as texts"):
        frame = rk.read_export(path)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "trace_id": "string", "cost_usd": "float64", "colour": "string",
    }  # fmt: skip
    frame.rename(columns={"colour": "model"}).to_parquet(tmp_path / "own.parquet")
    assert rk.read_export(tmp_path / "own.parquet")["model"].tolist() == ["red"]


def test_a_page_stands_alone(observations: pd.DataFrame, scores: pd.DataFrame, tmp_path: Path) -> None:
    """The transcript forbids itself to load or run anything, and has every turn."""
    page = rk.export(observations, tmp_path / "replay.html", scores=scores).read_text()
    assert page.startswith("<!doctype html>")
    assert "default-src &#x27;none&#x27;" in page
    assert page.count('class="rk-turn"') == 3


def test_a_notebook_reproduces_the_analysis(
    observations: pd.DataFrame, scores: pd.DataFrame, tmp_path: Path
) -> None:
    """The exported notebook runs where it lies, without a server; no text of a trace is in it before."""
    path = rk.export(observations, tmp_path / "analysis.ipynb", scores=scores)
    assert "5,076" not in path.read_text()
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "analysis-scores.parquet", "analysis.ipynb", "analysis.parquet",
    ]  # fmt: skip
    result = rk.run_notebook(path, output_path=tmp_path / "out" / "analysis.ipynb")
    assert result.outcome == "passed", result.message
    shown = nbformat.read(result.output_path, as_version=4)
    outputs = {cell.id: cell.outputs for cell in shown.cells if cell.cell_type == "code"}
    assert "It weighs" in outputs["replay"][0]["data"]["text/plain"]
    assert "image/png" in outputs["cost-plot"][0]["data"]
    assert f"trace {1:032x}" in outputs["slowest"][0]["data"]["text/plain"]


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda frame: frame, "x.xlsx", "name a file that ends with .parquet"),
        (lambda frame: frame, "nowhere/x.csv", "there is no folder"),
        (lambda frame: frame.set_index("trace_id"), "x.csv", "Call reset_index"),
        (lambda frame: frame.assign(o=[object()] * len(frame)), "x.csv", "The column 'o' of dtype object"),
        (lambda frame: frame[[]], "x.parquet", "has no columns"),
        (lambda frame: frame[["name"]], "x.html", "replay needs the column"),
        (lambda frame: frame[["name"]], "x.ipynb", "needs the column"),
        (lambda frame: 7, "x.csv", "Cannot export a int"),
    ],
)
def test_what_cannot_be_exported_is_refused(observations, tmp_path, change, name, message) -> None:
    """Errors say what to do, before anything is written."""
    with pytest.raises(ConfigError, match=message):
        rk.export(change(observations), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "There is no file"),
        ("page.html", "x", "Cannot read"),
        ("bad.parquet", "no parquet", "cannot be read as parquet"),
        ("bad.jsonl", "{no json", "cannot be read as jsonl"),
        ("bad.csv", "cost_usd\nmuch\n", "cannot be read as csv"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    """Errors name the file and the cause."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        rk.read_export(tmp_path / name)


def test_rolling_up_gives_the_frames_without_a_server(
    observations: pd.DataFrame, scores: pd.DataFrame
) -> None:
    """Messages, cells, traces and sessions come from observations at hand, with their scores."""
    counts = {to: len(rk.roll_up(observations, to)) for to in ("messages", "cells", "traces", "sessions")}
    assert counts == {"messages": 2, "cells": 1, "traces": 3, "sessions": 1}
    assert rk.roll_up(observations, "sessions", scores=scores)["score_share"].tolist() == [0.5]
    with pytest.raises(ConfigError, match="Cannot roll up to 'days'"):
        rk.roll_up(observations, "days")

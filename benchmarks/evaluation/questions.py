"""The questions of the evaluation, their tables, and who is right.

Owns the questions' file and the judge; asks nobody. Invariant: the tables and documents of the two splits are
different ones, so that nothing of the test split can have shaped the assistant.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

__all__ = ["DOCUMENTS", "Question", "is_right", "load_questions", "load_table"]

DOCUMENTS = Path(__file__).parents[2] / "docs"
_FILE = Path(__file__).with_name("questions.json")
# Answers may be rounded; counts may not.
_TOLERANCE = 0.005
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w]|\.\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        question_id: Its name.
        split: ``train`` may shape an assistant, ``test`` may not.
        kind: What it takes to answer it.
        tables: Variables that are there when it is asked.
        question: The question itself.
        expected: Numbers and words that a right answer has.
        avoid: Words that a right answer has not.
        sql: Computes what is expected, for a test of the file.
        file: The document that has the answer.
        phrase: Where it stands there.
    """

    question_id: str
    split: Literal["train", "test"]
    kind: str
    tables: tuple[str, ...]
    question: str
    expected: tuple[str, ...]
    avoid: tuple[str, ...] = ()
    sql: str = ""
    file: str = ""
    phrase: str = ""


def load_questions() -> list[Question]:
    """Return all questions."""
    listed = json.loads(_FILE.read_text(encoding="utf-8"))
    names = ("tables", "expected", "avoid")
    return [Question(**entry | {name: tuple(entry.get(name, ())) for name in names}) for entry in listed]


def load_table(name: str) -> pd.DataFrame:
    """Return a data set that a package brings along."""
    if name == "penguins":
        from palmerpenguins import load_penguins

        return load_penguins()
    from vega_datasets import local_data

    return getattr(local_data, name)()


def is_right(answer: str, question: Question) -> bool:
    """Return True when ``answer`` has everything that is expected, and nothing that is not."""
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(answer)]
    return all(_is_said(part, answer, numbers) for part in question.expected) and not any(
        _has_word(part, answer) for part in question.avoid
    )


def _is_said(part: str, answer: str, numbers: list[float]) -> bool:
    if not re.fullmatch(r"-?[\d.]+", part):
        return _has_word(part, answer)
    value = float(part)
    allowed = 0.0 if "." not in part else abs(value) * _TOLERANCE
    return any(abs(number - value) <= allowed for number in numbers)


def _has_word(part: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", answer, re.IGNORECASE) is not None

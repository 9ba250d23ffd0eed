"""The small decisions that the local model takes, each with its worked examples.

Owns instructions and examples; asks nothing itself. Invariant: the examples are about flights, patients and
cargo only, so that no answer about other data stands in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ALL_TASKS",
    "ANSWER",
    "CALCULATE",
    "CHOOSE_TABLE",
    "CHOOSE_TOOL",
    "COLUMN",
    "OPERATIONS",
    "PLAN",
    "SEARCH",
    "SEARCH_TOOL",
    "TOOLS",
    "Task",
    "case_text",
    "fixed_text",
]

# A model this small follows plain words far better than the names that pandas uses.
OPERATIONS = {
    "number of rows": "count",
    "average": "mean",
    "median": "median",
    "total": "sum",
    "smallest": "min",
    "largest": "max",
    "standard deviation": "std",
    "number of different values": "nunique",
    "rows per value": "value_counts",
    "number of missing values": "count_missing",
}
CALCULATE = "calculate"
SEARCH = "search the documents"
SEARCH_TOOL = "search_documents"
TOOLS = {
    "list the variables": "list_variables",
    "describe the columns": "describe_variable",
    CALCULATE: "query_dataframe",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One decision.

    Attributes:
        instructions: What to decide, in one line.
        inputs: Names of the inputs.
        demos: Worked examples: inputs and outputs.
    """

    instructions: str
    inputs: tuple[str, ...]
    demos: tuple[dict[str, Any], ...]


def fixed_text(instructions: str, inputs: Iterable[str], demos: Iterable[Mapping[str, Any]]) -> str:
    """Return the beginning of a prompt that is the same for every question."""
    inputs = tuple(inputs)
    blocks = [instructions.strip()]
    # All outputs of the example, also those that this question leaves out: the fixed part must not change.
    blocks += [
        case_text(inputs, demo) + json.dumps({name: demo[name] for name in demo if name not in inputs})
        for demo in demos
    ]
    return "".join(f"{block}\n\n" for block in blocks)


def case_text(inputs: Iterable[str], values: Mapping[str, Any]) -> str:
    """Return what is asked, as the model reads it."""
    return "".join(f"{name.capitalize()}: {values[name]}\n" for name in inputs if name in values)


def _demos(names: tuple[str, ...], *rows: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(names, row, strict=True)) for row in rows)


CHOOSE_TOOL = Task(
    instructions="Which tool answers the question?",
    inputs=("question",),
    demos=_demos(
        ("question", "tool"),
        ("What is the average delay of the flights?", "calculate"),
        ("What variables are there?", "list the variables"),
        ("Which columns does the flights table have?", "describe the columns"),
        ("How many rows does the flights table have?", "calculate"),
        ("Describe the patients table.", "describe the columns"),
        ("How many different hospitals are there?", "calculate"),
        ("What data is loaded in this notebook?", "list the variables"),
        ("What is the longest distance?", "calculate"),
        ("What kind of data does flights contain?", "describe the columns"),
        ("Which airlines occur, and with how many flights each?", "calculate"),
        ("List everything that is defined here.", "list the variables"),
        ("How many female patients are there?", "calculate"),
        ("Where are the settings of the program kept?", "search the documents"),
        ("What happens when the disk is full?", "search the documents"),
        ("Which diagnosis is the most frequent?", "calculate"),
        ("How do I install the package?", "search the documents"),
        ("How many patients are older than 60?", "calculate"),
        ("What does the option verbose do?", "search the documents"),
    ),
)

CHOOSE_TABLE = Task(
    instructions="Which table is the question about?",
    inputs=("question",),
    demos=_demos(
        ("question", "table"),
        ("How many patients have asthma?", "patients"),
        ("What is the average delay of a flight?", "flights"),
        ("Describe the cargo table.", "cargo"),
        ("How old is the oldest patient?", "patients"),
    ),
)

PLAN = Task(
    instructions="Choose the operation that answers the question.",
    inputs=("question",),
    demos=_demos(
        ("question", "operation", "rows", "per"),
        ("How many ROWS are in the table?", "number of rows", "all", "none"),
        ("What is the average NUMBER in minutes?", "average", "all", "none"),
        ("How many different CATEGORY are there?", "number of different values", "all", "none"),
        ("How many ROWS are in each CATEGORY?", "rows per value", "all", "CATEGORY"),
        ("What is the longest NUMBER?", "largest", "all", "none"),
        ("What is the total NUMBER of the cargo?", "total", "all", "none"),
        ("How many ROWS start in VALUE?", "number of rows", "VALUE", "none"),
        ("What is the smallest NUMBER?", "smallest", "all", "none"),
        ("What is the median NUMBER of the ROWS?", "median", "all", "none"),
        ("Which CATEGORY occur, and with how many ROWS each?", "rows per value", "all", "CATEGORY"),
        ("What is the mean NUMBER of ROWS with VALUE?", "average", "VALUE", "none"),
        ("How much NUMBER was carried altogether?", "total", "all", "none"),
        ("How many CATEGORY are there?", "number of different values", "all", "none"),
        ("How old is the oldest ROWS?", "largest", "all", "none"),
        ("What is the standard deviation of the NUMBER?", "standard deviation", "all", "none"),
        ("How many VALUE ROWS are there?", "number of rows", "VALUE", "none"),
        ("How tall is the shortest ROWS?", "smallest", "all", "none"),
        ("How tall is the tallest ROWS?", "largest", "all", "none"),
        ("How many rows does the ROWS table have?", "number of rows", "all", "none"),
        ("What is the average NUMBER for each CATEGORY?", "average", "all", "CATEGORY"),
        ("How many ROWS does each CATEGORY have?", "rows per value", "all", "CATEGORY"),
        ("What is the median NUMBER of VALUE ROWS?", "median", "VALUE", "none"),
        ("How many ROWS are there?", "number of rows", "all", "none"),
        ("How many different CATEGORY appear in the ROWS?", "number of different values", "all", "none"),
        ("What is the highest NUMBER?", "largest", "all", "none"),
        ("How many ROWS use the CATEGORY VALUE?", "number of rows", "VALUE", "none"),
        ("What is the cheapest NUMBER?", "smallest", "all", "none"),
        ("How many NUMBER were carried by VALUE in total?", "total", "VALUE", "none"),
        ("What is the largest NUMBER per CATEGORY?", "largest", "all", "CATEGORY"),
        ("How many ROWS have VALUE NUMBER?", "number of rows", "VALUE", "none"),
        ("How many ROWS have no NUMBER?", "number of missing values", "all", "none"),
        ("Which CATEGORY has the highest average NUMBER?", "average", "all", "CATEGORY"),
        ("Which CATEGORY has the most ROWS?", "rows per value", "all", "CATEGORY"),
        ("How many ROWS weigh VALUE kilos?", "number of rows", "VALUE", "none"),
        ("Which CATEGORY is the most common?", "rows per value", "all", "CATEGORY"),
        ("What is the average NUMBER of ROWS with VALUE NUMBER?", "average", "VALUE", "none"),
        ("How many ROWS miss a CATEGORY?", "number of missing values", "all", "none"),
        ("Which CATEGORY carried the largest NUMBER?", "largest", "all", "CATEGORY"),
        ("Which CATEGORY is the tallest on average?", "average", "all", "CATEGORY"),
        ("How many different CATEGORY do the ROWS have?", "number of different values", "all", "none"),
    ),
)

COLUMN = Task(
    instructions="Name the column that is asked for.",
    inputs=("question",),
    demos=_demos(
        ("question", "column"),
        ("What is the average delay?", "delay minutes"),
        ("How heavy is the heaviest patient?", "weight kg"),
        ("How many airlines are there?", "airline"),
        ("What is the longest distance?", "distance km"),
        ("Which diagnoses occur, with how many patients each?", "diagnosis"),
        ("What is the median age of female patients?", "age years"),
        ("How much does the cheapest ticket cost?", "ticket price"),
        ("How old is the youngest patient?", "age years"),
        ("How many flights start from each origin?", "origin"),
        ("What is the highest heart rate for each hospital?", "heart rate"),
    ),
)

ANSWER = Task(
    instructions="Say the result in one sentence.",
    inputs=("question", "result"),
    demos=_demos(
        ("question", "result", "answer"),
        ("What is the average delay?", "average of delay minutes: 12.4", "The average delay is 12.4."),
        (
            "How many female patients are there?",
            "number of rows where sex is female: 57",
            "There are 57 female patients.",
        ),
        (
            "How many flights start in Oslo?",
            "number of rows where origin is Oslo: 31",
            "31 flights start in Oslo.",
        ),
        ("What is the longest distance?", "largest distance km: 9800", "The longest distance is 9800."),
        (
            "How many different hospitals are there?",
            "number of different values of hospital: 6",
            "There are 6 different hospitals.",
        ),
        (
            "What is the mean weight of patients with asthma?",
            "average of weight kg where diagnosis is asthma: 71.25",
            "The mean weight of patients with asthma is 71.25.",
        ),
        (
            "How many rows does the flights table have?",
            "number of rows: 812",
            "The flights table has 812 rows.",
        ),
    ),
)

ALL_TASKS = (CHOOSE_TOOL, CHOOSE_TABLE, PLAN, COLUMN, ANSWER)

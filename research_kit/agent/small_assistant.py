"""The assistant for the small local model: a few closed choices instead of free reasoning.

Owns the order of the decisions and what becomes of them; does not compute anything itself, the kernel's tools
do. Invariant: every number in an answer comes from a tool's result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import dspy

from research_kit.agent.linking import CATEGORY, VALUE, Comparison, Links, Table, link, overlap, words
from research_kit.agent.loop import agent_loop
from research_kit.agent.small_tasks import (
    ANSWER,
    CHOOSE_TABLE,
    CHOOSE_TOOL,
    COLUMN,
    OPERATIONS,
    PLAN,
    SEARCH,
    SEARCH_TOOL,
    TOOLS,
    Task,
)
from research_kit.agent.text_adapter import TextAdapter
from research_kit.errors import ToolError

__all__ = ["SmallAssistant"]

_MAX_TABLES = 8
_MAX_QUESTION_CHARACTERS = 500
_MAX_QUOTES = 3
_MAX_QUOTE = 500
_QUOTED_PIECES = 3
# The tool gives so many groups at most: of more, the first need not be among them.
_MOST_GROUPS = 30
_COUNTING = ("count", "nunique", "value_counts")
_SUPERLATIVES = dict.fromkeys(
    ("biggest", "dearest", "heaviest", "highest", "largest", "longest", "most", "oldest", "tallest"), "max"
) | dict.fromkeys(
    ("cheapest", "fewest", "least", "lightest", "lowest", "shortest", "smallest", "youngest"), "min"
)
_LABELS = {operation: label for label, operation in OPERATIONS.items()}
# Words an answer may use besides those of the question and the result.
_FREE_WORDS = frozenset(
    words(
        "a all an and are by do does each for from has have in is it of on row rows that the "
        "there these they this to was were with"
    )
)
_ADVICE = "Name a larger language model (RESEARCH_KIT_LM) for questions like this."


class Plan(NamedTuple):
    """What is to be computed, in the words of `OPERATIONS`."""

    operation: str
    is_filtered: bool
    is_grouped: bool


class SmallAssistant(dspy.Module):
    """Answers questions about the notebook's tables with a model of 270 million parameters.

    The model takes each decision from a closed list that is made for the question: which tool, which table,
    which operation, whether to filter and to group, which column. The lists hold only what the kernel's tools
    say exists. Values to filter by are those of category columns that the question names literally, and
    numbers after words such as "more than". From documents it quotes, with the citation. The model
    then words the answer; a sentence that lacks the tool's number, or says anything that is neither in the
    question nor in the result, is replaced by a plain statement of the result; after the others stands in
    brackets what was computed. Tables of results are always stated plainly. Earlier messages of the
    conversation are not looked at.

    Args:
        lm: The local model.
        tools: DSPy tools; those of the server ``kernel`` are used.
    """

    def __init__(self, lm: dspy.BaseLM, tools: list[dspy.Tool]) -> None:
        super().__init__()
        self.lm = lm
        self.tools = {tool.name: tool for tool in tools if tool.name in (*TOOLS.values(), SEARCH_TOOL)}
        self.answer = _predict(ANSWER, {"answer": str})

    def forward(self, question: str, history: dspy.History | None = None) -> dspy.Prediction:
        """Answer ``question``; waits for the asynchronous form."""
        return agent_loop().run(self.aforward(question, history))

    async def aforward(self, question: str, history: dspy.History | None = None) -> dspy.Prediction:
        """Answer ``question`` with what the tools say now."""
        missing = sorted(set(TOOLS.values()) - set(self.tools))
        if missing:
            raise ToolError(
                f"The assistant needs the tools of the server 'kernel'; missing: {', '.join(missing)}."
            )
        with dspy.context(lm=self.lm, adapter=TextAdapter()):
            try:
                return dspy.Prediction(answer=await self._answer(question.strip()))
            except ToolError as error:
                return dspy.Prediction(answer=f"That did not work: {error}")

    async def _answer(self, question: str) -> str:
        if len(question) > _MAX_QUESTION_CHARACTERS:
            return f"The small local model reads at most {_MAX_QUESTION_CHARACTERS} characters. {_ADVICE}"
        variables = await self._call("list_variables")
        names = [row["name"] for row in variables["variables"] if row["is_table"]]
        described = [await self._call("describe_variable", name=name) for name in names[:_MAX_TABLES]]
        tables = [Table.from_description(entry) for entry in described]
        tool = await _choose(CHOOSE_TOOL, "tool", self._tool_names(question, tables), question=question)
        if tool == SEARCH:
            return await self._search(question)
        if TOOLS[tool] == "list_variables":
            return _say_variables(variables["variables"])
        if not tables:
            return "There is no DataFrame in the notebook yet, and only DataFrames can be asked about."
        table = await _choose_table(question, tables)
        if TOOLS[tool] == "describe_variable":
            return _say_description(next(entry for entry in described if entry["name"] == table.name))
        return await self._calculate(question, table)

    def _tool_names(self, question: str, tables: list[Table]) -> list[str]:
        """Return what the model may choose: what names nothing of a table may be for the documents."""
        if SEARCH_TOOL not in self.tools or any(_mention_count(question, table) for table in tables):
            return list(TOOLS)
        return [*TOOLS, SEARCH] if tables else ["list the variables", SEARCH]

    async def _search(self, question: str) -> str:
        found = (await self._call(SEARCH_TOOL, query=question, limit=_MAX_QUOTES))["passages"]
        if not found:
            return "The documents say nothing about this."
        return "\n\n".join(f"> {_quote(row['text'], question)}\n\n{row['citation']}" for row in found)

    async def _calculate(self, question: str, table: Table) -> str:
        links = link(question, table)
        plan = await _plan(links.pattern)
        operation = OPERATIONS[plan.operation]
        ranked = _ranked_column(question, links, table)
        where = [{"column": name, "value": value} for name, value in links.values] if plan.is_filtered else []
        where += [await _condition(comparison, table, links) for comparison in links.comparisons]
        arguments: dict[str, Any] = {"name": table.name, "operation": operation}
        if operation != "count":
            candidates = _candidates(
                operation, table, links, {str(condition["column"]) for condition in where}
            )
            if not candidates:
                return f"The table {table.name} has no column for {plan.operation!r}."
            arguments["column"] = await _choose_column(question, candidates)
        if where:
            arguments["where"] = where
        grouping = [name for name in links.columns if name in table.categories]
        grouping = [ranked] if ranked is not None else grouping if plan.is_grouped else []
        if operation in _COUNTING and ranked is not None:
            arguments |= {"operation": "value_counts", "column": ranked}
        elif operation != "value_counts" and grouping and grouping[0] != arguments.get("column"):
            arguments["group_by"] = grouping[0]
        result = await self._call("query_dataframe", **arguments)
        if ranked is not None and 0 < len(result.get("groups", ())) < _MOST_GROUPS:
            return _say_ranked(question, result["groups"], arguments)
        return await self._word(question, result, arguments)

    async def _word(self, question: str, result: dict[str, Any], arguments: dict[str, Any]) -> str:
        title = _title(arguments)
        stated = f"{title[0].upper()}{title[1:]}"
        if "groups" in result:
            shown = ", ".join(f"{group['group']}: {_show(group['value'])}" for group in result["groups"])
            return f"{stated}: {shown or 'none'}."
        value = _show(result["value"])
        plain = f"{stated}: {value}."
        if result["value"] is None:
            return plain
        text = f"{_title(arguments, with_table=False)}: {value}"
        worded: str = (await self.answer.acall(question=question, result=text)).answer
        if not is_grounded(worded, question=question, result=text, value=value):
            return plain
        # The model may have chosen wrongly and still word it well: say what was computed.
        return f"{worded.strip()} ({title})"

    async def _call(self, tool_name: str, /, **arguments: Any) -> dict[str, Any]:
        answer = await self.tools[tool_name].acall(**arguments)
        structured = getattr(answer, "structured", None)
        if not isinstance(structured, dict):
            raise ToolError(f"The tool {tool_name!r} gave no structured result.")
        return structured


def is_grounded(answer: str, *, question: str, result: str, value: str) -> bool:
    """Return True when ``answer`` states ``value`` and adds nothing to question and result."""
    said = words(answer)
    known = set(words(question)) | set(words(result)) | _FREE_WORDS
    stated = [number.rstrip(".") for number in re.findall(r"-?\d[\d.]*", answer)]
    return value in stated and all(word in known for word in said)


async def _choose(task: Task, output: str, choices: list[str], **inputs: str) -> str:
    if len(choices) == 1:
        return choices[0]
    prediction = await _predict(task, {output: Literal[tuple(choices)]}).acall(**inputs)
    chosen: str = prediction[output]
    return chosen


async def _plan(pattern: str) -> Plan:
    """Let the model read the question's pattern; it is asked only what the pattern leaves open."""
    outputs: dict[str, Any] = {"operation": Literal[tuple(OPERATIONS)]}
    if VALUE in pattern:
        outputs["rows"] = Literal["all", VALUE]
    if CATEGORY in pattern:
        outputs.setdefault("rows", Literal["all"])
        outputs["per"] = Literal["none", CATEGORY]
    chosen = await _predict(PLAN, outputs).acall(question=pattern)
    return Plan(
        operation=chosen.operation,
        is_filtered=chosen.get("rows") == VALUE,
        is_grouped=chosen.get("per") == CATEGORY,
    )


async def _choose_table(question: str, tables: list[Table]) -> Table:
    """Take the table that the question mentions most; let the model choose between equals."""
    scores = {table.name: _mention_count(question, table) for table in tables}
    best = max(scores.values())
    candidates = {table.name: table for table in tables if scores[table.name] == best}
    return candidates[await _choose(CHOOSE_TABLE, "table", list(candidates), question=question)]


def _mention_count(question: str, table: Table) -> int:
    links = link(question, table)
    is_named = set(words(table.name)) <= set(words(question))
    return 2 * is_named + len(links.values) + bool(links.columns)


async def _choose_column(question: str, candidates: list[str]) -> str:
    """Take the column whose name the question says most of; let the model choose between equals."""
    said = set(words(question))
    best = max(overlap(column, said) for column in candidates)
    readable = {column.replace("_", " "): column for column in candidates if overlap(column, said) == best}
    return readable[await _choose(COLUMN, "column", list(readable), question=question)]


async def _condition(comparison: Comparison, table: Table, links: Links) -> dict[str, Any]:
    """Return the condition of a comparison: on the column named beside the number, or elsewhere."""
    near = [column for column in table.numbers if overlap(column, set(comparison.around))]
    named = [column for column in table.numbers if column in links.columns]
    years = [column for column in table.numbers if "year" in words(column)]
    is_year = comparison.operator == "==" and 1500 <= comparison.number <= 2200
    candidates = (years if is_year else []) or near or named or list(table.numbers)
    column = await _choose_column(" ".join(comparison.around), candidates)
    return {"column": column, "operator": comparison.operator, "value": comparison.number}


def _ranked_column(question: str, links: Links, table: Table) -> str | None:
    """Return the category of which the first or last is asked for: "which species is the heaviest"."""
    said = words(question)
    if said[:1] not in (["which"], ["what"]) or not _SUPERLATIVES.keys() & set(said):
        return None
    begin = set(said[1:5])
    named = [name for name in table.categories if name in links.columns and overlap(name, begin)]
    return named[0] if named else None


def _candidates(operation: str, table: Table, links: Links, taken: set[str]) -> list[str]:
    if operation in ("nunique", "value_counts", "count_missing"):
        named = [name for name in (*table.numbers, *table.others) if name in links.columns]
        return [*table.categories, *(name for name in named if name not in taken)]
    return [name for name in table.numbers if name not in taken] or list(table.numbers)


def _say_ranked(question: str, groups: list[dict[str, Any]], arguments: dict[str, Any]) -> str:
    is_last = any(_SUPERLATIVES.get(word) == "min" for word in words(question))
    known = [group for group in groups if group["value"] is not None]
    first = (min if is_last else max)(known, key=lambda group: group["value"], default=None)
    if first is None:
        return "No row has a value."
    return f"{first['group']}, with {_show(first['value'])} ({_title(arguments)})"


def _quote(text: str, question: str) -> str:
    """Return the part of a passage that has most words of the question, as one paragraph."""
    pieces = [" ".join(piece.split()) for piece in re.split(r"\n\s*\n|(?<=[.!?])\s+|\n(?=[|-])", text)]
    asked = set(words(question))
    scores = [len(asked & set(words(piece))) for piece in pieces]
    best = max(range(len(pieces)), key=lambda index: scores[index])
    return " ".join(pieces[best : best + _QUOTED_PIECES])[:_MAX_QUOTE]


def _predict(task: Task, outputs: Mapping[str, Any]) -> dspy.Predict:
    fields: dict[str, Any] = {name: (str, dspy.InputField()) for name in task.inputs}
    fields |= {name: (kind, dspy.OutputField()) for name, kind in outputs.items()}
    predict = dspy.Predict(dspy.Signature(fields, task.instructions))
    predict.demos = [dict(demo) for demo in task.demos]
    return predict


def _title(arguments: dict[str, Any], *, with_table: bool = True) -> str:
    """Say in words what a query computes."""
    label = _LABELS[arguments["operation"]]
    column = arguments.get("column", "").replace("_", " ")
    joint = " " if arguments["operation"] in ("min", "max") else " of "
    title = f"{label}{joint}{column}" if column else label
    if with_table:
        title += f" in {arguments['name']}"
    for index, condition in enumerate(arguments.get("where", [])):
        sign = condition.get("operator", "is")
        title += (
            f"{' where' if index == 0 else ' and'} {condition['column']} {sign} {_show(condition['value'])}"
        )
    return title + (f" per {arguments['group_by']}" if "group_by" in arguments else "")


def _say_variables(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "There are no variables in the notebook yet."
    shown = ", ".join(
        f"{row['name']} ({row['type']}{', ' + row['size'] if row['size'] else ''})" for row in rows
    )
    return f"The notebook has {len(rows)} variable{'s' if len(rows) != 1 else ''}: {shown}."


def _say_description(entry: dict[str, Any]) -> str:
    lines = [f"- {column['name']}: {column['summary']}" for column in entry["columns"]]
    return f"{entry['name']} has {entry['row_count']} rows and these columns:\n" + "\n".join(lines)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return "no value" if value is None else str(value)

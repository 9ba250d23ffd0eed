"""Both assistants with a scripted model: what they ask, which tools they call, what they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pytest
from scripted_lm import ScriptedLM, running_lm

from research_kit.agent import (
    LMChoice,
    ToolServer,
    agent_loop,
    answer_listener,
    as_dspy_tools,
    build_assistant,
    build_kernel_server,
)
from research_kit.agent.papers.server import build_papers_server
from research_kit.agent.small_assistant import is_grounded
from research_kit.errors import ToolError


@pytest.fixture
def lm_server() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server


@pytest.fixture
def variables() -> dict[str, Any]:
    boats = pd.DataFrame(
        {
            "harbour": ["Bergen", "Oslo", "Bergen"],
            "length_m": [10.0, 12.5, 30.0],
            "crew": ["A", "B", "C"],
        }
    )
    return {"boats": boats}


@pytest.fixture
def kernel(variables: dict[str, Any]) -> Iterator[ToolServer]:
    server = ToolServer("kernel", build_kernel_server(lambda: variables))
    yield server
    server.close()


def assistant(lm_server: ScriptedLM, kernel: ToolServer, *, is_local: bool) -> dspy.Module:
    lm = dspy.LM("openai/scripted", api_base=lm_server.base_url, api_key="x", cache=False, num_retries=0)
    choice = LMChoice(lm=lm, name=lm.model, reason="test", is_local=is_local)
    return build_assistant(choice, as_dspy_tools(kernel))


def prompts(lm_server: ScriptedLM) -> list[str]:
    return [request["messages"][-1]["content"] for request in lm_server.requests]


def test_small_assistant_takes_closed_decisions(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """Tool, plan and column are chosen one after the other, then the sentence is written."""
    lm_server.script(
        '{"tool": "calculate"}',
        '{"operation": "average", "rows": "VALUE"}',
        '{"answer": "The mean length of boats in Bergen is 20."}',
    )
    small = assistant(lm_server, kernel, is_local=True)
    answer = small(question="What is the mean length of boats in Bergen?").answer
    assert answer.startswith("The mean length of boats in Bergen is 20.")
    asked = prompts(lm_server)
    assert len(asked) == 3
    assert asked[1].endswith("Question: What is the mean NUMBER of ROWS in VALUE?\n")
    assert "average of length m where harbour is Bergen: 20" in asked[2]


def test_small_assistant_replaces_an_unfounded_sentence(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """A sentence with a number or a word from nowhere gives way to a plain statement of the result."""
    lm_server.script(
        '{"tool": "calculate"}', '{"operation": "largest"}', '{"answer": "The longest boat is 31 feet."}'
    )
    small = assistant(lm_server, kernel, is_local=True)
    assert small(question="What is the largest length?").answer.startswith("Largest length m in boats: 30.")


def test_small_assistant_states_groups_itself(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """A table of results is stated without asking the model."""
    lm_server.script(
        '{"tool": "calculate"}',
        '{"operation": "rows per value", "rows": "all", "per": "CATEGORY"}',
        '{"column": "harbour"}',
    )
    small = assistant(lm_server, kernel, is_local=True)
    assert "Bergen: 2, Oslo: 1" in small(question="How many boats are in each harbour?").answer


@pytest.mark.parametrize(
    ("question", "replies", "answer"),
    [
        (
            "How many boats have a length of more than 11?",
            ['{"tool": "calculate"}', '{"operation": "number of rows", "rows": "VALUE"}', '{"answer": "x"}'],
            "Number of rows in boats where length_m > 11: 2.",
        ),
        (
            "Which harbour has the fewest boats?",
            ['{"tool": "calculate"}', '{"operation": "rows per value", "rows": "all", "per": "CATEGORY"}'],
            "Oslo, with 1 (rows per value of harbour in boats)",
        ),
        (
            "Which harbour has the longest boats on average?",
            ['{"tool": "calculate"}', '{"operation": "average", "rows": "all", "per": "none"}'],
            "Bergen, with 20 (average of length m in boats per harbour)",
        ),
        (
            "How many boats have no harbour?",
            [
                '{"tool": "calculate"}',
                '{"operation": "number of missing values", "rows": "all", "per": "none"}',
                '{"answer": "x"}',
            ],
            "Number of missing values of harbour in boats: 0.",
        ),
    ],
    ids=["comparison", "fewest", "highest-average", "missing"],
)
def test_small_assistant_compares_and_ranks(
    lm_server: ScriptedLM, kernel: ToolServer, question: str, replies: list[str], answer: str
) -> None:
    """Numbers and superlatives of the question become conditions and the first of a group, by rule."""
    lm_server.script(*replies)
    assert assistant(lm_server, kernel, is_local=True)(question=question).answer == answer


def test_small_assistant_quotes_documents(
    lm_server: ScriptedLM, kernel: ToolServer, variables: dict[str, Any], tmp_path: Path
) -> None:
    """What names nothing of a table may be looked up; the answer is a quotation with its citation."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "boats.md").write_text("# Care\n\nOars are oiled in spring. Sails are dried.")
    papers = ToolServer("papers", build_papers_server(tmp_path / "docs", tmp_path / "index"))
    lm = dspy.LM("openai/scripted", api_base=lm_server.base_url, api_key="x", cache=False)
    choice = LMChoice(lm=lm, name="x", reason="test", is_local=True)
    small = build_assistant(choice, as_dspy_tools(kernel, papers))
    lm_server.script('{"tool": "search the documents"}')
    answer = small(question="When are the oars oiled?").answer
    assert answer == '> Oars are oiled in spring. Sails are dried.\n\nboats.md, "Care", lines 1-3'
    lm_server.script('{"tool": "search the documents"}')
    assert small(question="Where is the xylophone?").answer == "The documents say nothing about this."
    papers.close()


def test_small_assistant_lists_and_describes(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """The other two tools are chosen and their results stated."""
    small = assistant(lm_server, kernel, is_local=True)
    lm_server.script('{"tool": "list the variables"}')
    assert "boats (DataFrame, 3 rows x 3 columns)" in small(question="What is there?").answer
    lm_server.script('{"tool": "describe the columns"}')
    assert "- length_m: number" in small(question="Describe the boats.").answer


def test_small_assistant_says_what_it_cannot_do(
    lm_server: ScriptedLM, kernel: ToolServer, variables: dict[str, Any]
) -> None:
    """A question beyond its means is declined with advice, and an empty notebook is said to be empty."""
    small = assistant(lm_server, kernel, is_local=True)
    assert "RESEARCH_KIT_LM" in small(question="How many boats are there? " * 30).answer
    variables.clear()
    lm_server.script('{"tool": "calculate"}')
    assert "no DataFrame" in small(question="How many boats are there?").answer


def test_small_assistant_takes_the_table_that_is_mentioned(
    lm_server: ScriptedLM, kernel: ToolServer, variables: dict[str, Any]
) -> None:
    """With several tables the one whose names stand in the question is used; equals are left to the model."""
    variables["trains"] = pd.DataFrame({"line": ["R1", "R2"], "speed_kmh": [120, 160]})
    small = assistant(lm_server, kernel, is_local=True)
    lm_server.script(
        '{"tool": "calculate"}', '{"operation": "largest"}', '{"answer": "The top speed is 160."}'
    )
    assert "160" in small(question="What is the top speed?").answer
    lm_server.script('{"tool": "describe the columns"}', '{"table": "trains"}')
    assert small(question="What does it look like?").answer.startswith("trains has 2 rows")


def test_small_assistant_needs_the_kernel_tools(lm_server: ScriptedLM) -> None:
    """Without the kernel's tools the error names what is missing."""
    lm = dspy.LM("openai/scripted", api_base=lm_server.base_url, api_key="x")
    small = build_assistant(LMChoice(lm=lm, name="x", reason="test", is_local=True), [])
    with pytest.raises(ToolError, match="missing: describe_variable, list_variables, query_dataframe"):
        small(question="How many?")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The average length is 12.5.", True),
        ("There are 12.5 boats in Bergen.", True),
        ("The average length is 12.5 feet.", False),
        ("The average length is 12.", False),
        ("The average length is 112.5.", False),
        ("The average length is 12.5, 7 more than before.", False),
        ("", False),
    ],
)
def test_grounded_answers_say_nothing_new(answer: str, expected: bool) -> None:
    """A sentence counts only with the exact value and without foreign words or numbers."""
    question = "What is the average length of the boats?"
    result = "average of length m where harbour is Bergen: 12.5"
    assert is_grounded(answer, question=question, result=result, value="12.5") is expected


def react_step(thought: str, tool: str, arguments: dict[str, Any]) -> str:
    return (
        f"[[ ## next_thought ## ]]\n{thought}\n\n[[ ## next_tool_name ## ]]\n{tool}\n\n"
        f"[[ ## next_tool_args ## ]]\n{json.dumps(arguments)}\n\n[[ ## completed ## ]]"
    )


FINAL_SMALL = '{"answer": "There are 3 \\"boats\\"."}'
FINAL = "[[ ## reasoning ## ]]\nI looked.\n\n[[ ## answer ## ]]\nThe mean is 17.5 m.\n\n[[ ## completed ## ]]"


def test_tool_assistant_reasons_and_calls(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """A large model calls real tools, sees their results and errors, and answers in view of the history."""
    lm_server.script(
        react_step("ask", "query_dataframe", {"name": "boat", "operation": "count"}),
        react_step("again", "query_dataframe", {"name": "boats", "operation": "mean", "column": "length_m"}),
        react_step("done", "finish", {}),
        FINAL,
    )
    history = dspy.History(messages=[{"question": "Hello?", "answer": "Good morning."}])
    large = assistant(lm_server, kernel, is_local=False)
    prediction = large(question="How long are the boats?", history=history)
    assert prediction.answer == "The mean is 17.5 m."
    assert "Did you mean 'boats'" in prediction.trajectory["observation_0"]
    assert prediction.trajectory["observation_1"] == "mean of length_m: 17.5"
    assert "Good morning." in str(lm_server.requests[0])


async def streamed(program: dspy.Module, question: str) -> tuple[str, str]:
    listener = answer_listener(program)
    pieces: list[str] = []

    class Sink:
        async def send(self, chunk: Any) -> None:
            piece = listener.receive(chunk)
            if piece is not None:
                pieces.append(piece.chunk)

    with dspy.context(send_stream=Sink(), stream_listeners=[listener]):
        prediction = await program.acall(question=question, history=dspy.History(messages=[]))
    rest = listener.finalize()
    return "".join([*pieces, rest.chunk if rest is not None else ""]), prediction.answer


def test_small_assistant_streams_its_sentence(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """The listener gives the answer's text alone, also for a second message."""
    small = assistant(lm_server, kernel, is_local=True)
    for _ in range(2):
        lm_server.script(
            '{"tool": "calculate"}',
            '{"operation": "number of rows"}',
            FINAL_SMALL,
        )
        text, answer = agent_loop().run(streamed(small, "How many boats are there?"))
        assert text == 'There are 3 "boats".'
        assert answer.startswith(text)


def test_tool_assistant_streams_its_answer(lm_server: ScriptedLM, kernel: ToolServer) -> None:
    """The listener gives the final answer, not the reasoning."""
    lm_server.script(react_step("done", "finish", {}), FINAL)
    text, answer = agent_loop().run(streamed(assistant(lm_server, kernel, is_local=False), "How long?"))
    assert text.strip() == answer == "The mean is 17.5 m."

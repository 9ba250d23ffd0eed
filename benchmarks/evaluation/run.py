"""``make eval``: asks every question, and prints how many answers are right, by kind of question.

Each question is a trace of one session tagged ``evaluation``, with the score ``correct``; the figures are
read back through the Langfuse API.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

import pandas as pd

import research_kit as rk
from benchmarks.evaluation.questions import DOCUMENTS, Question, is_right, load_questions, load_table
from research_kit.chat.events import MessageFinished


def main() -> int:
    """Run the evaluation and return 0."""
    parser = argparse.ArgumentParser(prog="make eval", description=__doc__)
    parser.add_argument("--split", choices=["train", "test"], help="only these questions")
    parser.add_argument("--kind", action="append", help="only this kind of question; may be repeated")
    parser.add_argument("--lm", help="the language model; by default the configured one")
    parser.add_argument("--answers", action="store_true", help="print every answer")
    options = parser.parse_args()
    chosen = [
        question
        for question in load_questions()
        if question.split == (options.split or question.split)
        and question.kind in (options.kind or [question.kind])
    ]
    session_id = f"evaluation-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    rk.bind(session_id, tags=["evaluation"], metadata={"experiment": session_id})
    print(rk.lm(options.lm))
    run_experiment(chosen, options.lm, prints_answers=options.answers)
    rk.flush()
    rk.wait_for(session_id, len(chosen))
    results = read_results(session_id, chosen)
    print(summarize(results).to_string())
    print(rk.status())
    return 0


def run_experiment(questions: list[Question], lm: str | None, *, prints_answers: bool) -> None:
    """Ask each question in a conversation of its own, and score its trace."""
    papers = rk.papers(DOCUMENTS)
    for question in questions:
        tables = {name: load_table(name) for name in question.tables}
        conversation = rk.Conversation(lm=lm, tools=[papers], get_namespace=lambda tables=tables: tables)
        event = conversation.send(question.question).wait()
        answer = event.answer if isinstance(event, MessageFinished) else ""
        correct = is_right(answer, question)
        expected = ", ".join(question.expected)
        rk.score("correct", correct, trace_id=event.trace_id, comment=f"expected: {expected}")
        if prints_answers:
            mark = "right" if correct else "WRONG"
            print(f"{mark} {question.question_id} {question.question} -> {answer[:200]!r} ({expected})")
            sys.stdout.flush()
    papers.close()


def read_results(session_id: str, questions: list[Question]) -> pd.DataFrame:
    """Return one row per question with its score, as the server has them."""
    messages = rk.messages_df(session_id, scores=True)
    asked = pd.DataFrame(
        {
            "question": [question.question for question in questions],
            "kind": [question.kind for question in questions],
            "split": [question.split for question in questions],
        }
    )
    return asked.merge(messages, on="question", validate="one_to_one")


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Return how many answers are right, by split and kind of question, with time and cost."""
    parts = [("kind", results.groupby(["split", "kind"])), ("all", results.groupby("split"))]
    frames = []
    for level, groups in parts:
        frame = groups.agg(
            right=("score_correct", "sum"),
            asked=("question", "size"),
            latency_p50_s=("latency_s", "median"),
            cost_usd=("cost_usd", lambda costs: costs.sum(min_count=1)),
        ).reset_index()
        frames.append(frame if level == "kind" else frame.assign(kind="(all)"))
    table = pd.concat(frames).set_index(["split", "kind"]).sort_index(kind="stable")
    table["right"] = table["right"].astype(int)
    return table.assign(share=(table["right"] / table["asked"]).round(2))


if __name__ == "__main__":
    sys.exit(main())

"""Records the two sessions that 02_analyse_sessions.ipynb analyses; run it to record them anew.

The same twelve questions about the penguins are asked twice: in everyday words, and naming the column that
they are about. Needs the extra ``local-lm`` or ``RESEARCH_KIT_LM``, and some minutes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from palmerpenguins import load_penguins

import research_kit as rk

DATA = Path(__file__).parent / "data"
# What says nothing about the conversation, but much about the machine, is not kept.
OF_THE_MACHINE = ("host", "git_", "scope.", "resourceAttributes.")

PENGUINS = load_penguins()
SESSIONS = ("penguins-everyday-words", "penguins-column-names")
# In everyday words, naming the column, and the right answer.
QUESTIONS = [
    (
        "How heavy are the penguins on average?",
        "What is the average body_mass_g?",
        PENGUINS["body_mass_g"].mean(),
    ),
    (
        "How long is the longest flipper?",
        "What is the largest flipper_length_mm?",
        PENGUINS["flipper_length_mm"].max(),
    ),
    ("How many kinds of penguins are there?", "How many different species are there?", 3),
    ("How many penguins were measured?", "How many rows does penguins have?", len(PENGUINS)),
    ("How thin can a bill be?", "What is the smallest bill_depth_mm?", PENGUINS["bill_depth_mm"].min()),
    (
        "How many birds live on Dream?",
        "How many rows have the island Dream?",
        (PENGUINS["island"] == "Dream").sum(),
    ),
    (
        "How long is the bill of a Gentoo, usually?",
        "What is the average bill_length_mm of the species Gentoo?",
        PENGUINS.query("species == 'Gentoo'")["bill_length_mm"].mean(),
    ),
    (
        "How heavy is the lightest bird?",
        "What is the smallest body_mass_g?",
        PENGUINS["body_mass_g"].min(),
    ),
    (
        "How many of them are female?",
        "How many rows have the sex female?",
        (PENGUINS["sex"] == "female").sum(),
    ),
    ("On how many islands were they?", "How many different island values are there?", 3),
    (
        "How long are the flippers of the males?",
        "What is the average flipper_length_mm of the sex male?",
        PENGUINS.query("sex == 'male'")["flipper_length_mm"].mean(),
    ),
    ("What was the last year?", "What is the largest year?", PENGUINS["year"].max()),
]


def main() -> None:
    """Ask all questions in both wordings, and judge each answer."""
    for column, session_id in enumerate(SESSIONS):
        rk.bind(session_id, user_id="researcher", tags=["penguins"])
        conversation = rk.Conversation(get_namespace=lambda: {"penguins": PENGUINS})
        for question in QUESTIONS:
            ask(conversation, question[column], float(question[2]))
        rk.score("share_right", sum(RIGHT[-len(QUESTIONS) :]) / len(QUESTIONS))
    rk.flush()
    keep()


def keep() -> None:
    """Write both sessions and their scores to files."""
    observations, scores = (
        pd.concat([read(session_id) for session_id in SESSIONS], ignore_index=True)
        for read in (rk.observations_df, rk.scores_df)
    )
    for frame, name in ((observations, "penguin_sessions"), (scores, "penguin_scores")):
        kept = [without_machine(metadata) for metadata in frame["metadata"]]
        rk.export(frame.assign(metadata=pd.array(kept, dtype="json")), DATA / f"{name}.parquet")


def without_machine(metadata: dict[str, object]) -> dict[str, object]:
    """Return what may be shown to everybody."""
    return {key: value for key, value in (metadata or {}).items() if not key.startswith(OF_THE_MACHINE)}


RIGHT: list[bool] = []


def ask(conversation: rk.Conversation, question: str, expected: float) -> None:
    """Ask, and put on the trace whether the answer is right."""
    event = conversation.send(question).result()
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", event.answer.replace(",", ""))]
    is_right = any(abs(number - expected) < 0.006 * max(1.0, expected) ** 0.5 for number in numbers)
    RIGHT.append(is_right)
    rk.score("right", is_right, trace_id=event.trace_id)


if __name__ == "__main__":
    main()

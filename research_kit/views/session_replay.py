"""``rk.replay()``: a session as the conversation that it was.

Owns the reading of a session and its figures; `turns` draws the turns. Invariant: reading happens in
`replay`, never when the result is displayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Unpack

import pandas as pd

from research_kit._words import cost_text, duration_text, tokens_text
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_text
from research_kit.store.markup import Markup, element
from research_kit.traces.reads import observations_df, scores_df
from research_kit.views.facts import Fact, fact_line, facts
from research_kit.views.nodes import TraceTree, trace_trees
from research_kit.views.source import SourceOptions, read_options
from research_kit.views.style import styled
from research_kit.views.texts import time_text
from research_kit.views.turns import Scores, pause_before, turn, turn_text
from research_kit.views.view import View

__all__ = ["SessionReplay", "replay"]


class SessionReplay(View):
    """A session turn by turn: what was asked, done and answered, with tokens, cost, latency and scores.

    Args:
        trees: The traces of the session, in order.
        scores: Its scores.
        max_turns: How many turns are shown.
    """

    def __init__(self, trees: Sequence[TraceTree], scores: Scores, *, max_turns: int) -> None:
        self._trees = trees
        self._scores = scores
        self._shown = trees[:max_turns]

    @property
    def title(self) -> str:
        """What the session is called."""
        return f"Session {', '.join(self._session_ids())}".strip()

    def to_html(self) -> str:
        """Return the conversation as one element of HTML."""
        if not self._trees:
            return styled(element("p", "Nothing was traced in this session.", class_="rk-note"))
        title = element("div", self.title, " ", element("span", self._subtitle()), class_="rk-title")
        turns: list[Markup | None] = []
        for before, tree in pairwise([None, *self._shown]):
            assert tree is not None
            turns += [pause_before(tree, before), turn(tree, self._scores)]
        return styled(title, facts(self._facts()), _ribbon(self._trees), *turns, self._rest())

    def compose_text(self) -> str:
        """Return the conversation as text."""
        if not self._trees:
            return "Nothing was traced in this session."
        turns = [turn_text(tree, self._scores) for tree in self._shown]
        hidden = len(self._trees) - len(self._shown)
        rest = [f"… {hidden:,} more turns; raise max_turns."] if hidden else []
        head = plain_text(f"{self.title} · {self._subtitle()}")
        return "\n\n".join([f"{head}\n{fact_line(self._facts())}", *turns, *rest])

    def _session_ids(self) -> list[str]:
        found = dict.fromkeys(node.values["session_id"] for tree in self._trees for node in tree.nodes)
        return [session_id for session_id in found if session_id]

    def _subtitle(self) -> str:
        nodes = [node.values for tree in self._trees for node in tree.nodes]
        users = dict.fromkeys(values["user_id"] for values in nodes if values["user_id"])
        models = dict.fromkeys(values["model"] for values in nodes if values["model"])
        began = time_text(self._trees[0].start_time, has_date=True)
        return " · ".join([began, *users, *models])

    def _facts(self) -> list[Fact]:
        trees = self._trees
        latencies = pd.Series([tree.duration_s for tree in trees])
        calls, errors = sum(tree.call_count for tree in trees), sum(tree.error_count for tree in trees)
        tools = sum(node.is_tool_call for tree in trees for node in tree.nodes)
        return [
            ("turns", f"{len(trees):,}"),
            (
                "cost",
                cost_text(_total(tree.cost_usd for tree in trees), sum(t.unpriced_count for t in trees)),
            ),
            (
                "tokens",
                tokens_text(_total(t.input_tokens for t in trees), _total(t.output_tokens for t in trees)),
            ),
            ("median time of a turn", duration_text(float(latencies.median()))),
            ("LM calls", f"{calls:,}"),
            ("tool calls", f"{tools:,}"),
            ("errors", f"{errors:,}" if errors else None),
            *((score.name, score.text) for score in self._scores.of_sessions(self._session_ids())),
        ]

    def _rest(self) -> Markup | None:
        hidden = len(self._trees) - len(self._shown)
        return (
            element("p", f"… {hidden:,} more turns; raise max_turns.", class_="rk-note") if hidden else None
        )


def replay(
    session: str | pd.DataFrame | None = None,
    *,
    scores: pd.DataFrame | None = None,
    max_turns: int = 200,
    **options: Unpack[SourceOptions],
) -> SessionReplay:
    """Return a session as the conversation that it was, with tool calls, tokens, cost, latency and scores.

    Args:
        session: A session id; a frame of observations, which is then shown without reading anything; None for
            this kernel's session.
        scores: A frame of `scores_df` that belongs to a frame of observations.
        max_turns: How many turns to show at most, the first ones.
        **options: `SourceOptions`: ``reader``, ``cache``, ``refresh``, ``progress``.

    Raises:
        ConfigError: When no session is bound, the session does not exist, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    if max_turns < 1:
        raise ConfigError(f"max_turns is {max_turns}. Give a whole number from 1 on.")
    if isinstance(session, pd.DataFrame):
        frame = session
    elif session is None or isinstance(session, str):
        frame = observations_df(session, **read_options(options))
        scores = scores_df(session, **read_options(options)) if scores is None else scores
    else:
        raise ConfigError(
            f"Cannot replay a {type(session).__name__}. Give a session id, or a frame from observations_df()."
        )
    return SessionReplay(trace_trees(frame, "replay"), Scores(scores), max_turns=max_turns)


def _ribbon(trees: Sequence[TraceTree]) -> Markup:
    """Draw one piece per turn, as long as it took: a session at a glance."""
    pieces = [
        element(
            "span",
            class_="rk-k-failed" if tree.root.has_failed else "rk-k-generation",
            style=f"flex: {max(tree.duration_s, 0.001):.3f}",
            title=f"{number}: {duration_text(tree.duration_s)}",
        )
        for number, tree in enumerate(trees, 1)
    ]
    label = element("div", "where the time went, turn by turn", class_="rk-label", style="margin: 0 0 8px")
    return element("div", element("div", *pieces, class_="rk-ribbon"), label)


def _total(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None

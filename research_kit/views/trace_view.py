"""``rk.show()``: one trace as a tree with a waterfall.

Owns what can be shown and where it is read; drawing is in `waterfall`. Invariant: reading happens in `show`,
never when the result is displayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import pandas as pd

from research_kit.errors import ConfigError
from research_kit.plain_text import plain_text
from research_kit.store.markup import Markup, element, fragment
from research_kit.traces.reads import observations_df
from research_kit.views.facts import fact_line, facts, trace_facts
from research_kit.views.nodes import TraceTree, trace_trees
from research_kit.views.source import SourceOptions, read_options
from research_kit.views.style import styled
from research_kit.views.view import View
from research_kit.views.waterfall import text_rows, waterfall

__all__ = ["TraceView", "show"]


class TraceView(View):
    """Traces as trees with bars for their time; each row opens to what went in and came out.

    Args:
        trees: The traces.
        max_rows: How many observations of each are shown.
    """

    def __init__(self, trees: Sequence[TraceTree], *, max_rows: int) -> None:
        self._trees = trees
        self._max_rows = max_rows

    def to_html(self) -> str:
        """Return the traces as one element of HTML."""
        if not self._trees:
            return styled(element("p", "No observations.", class_="rk-note"))
        return styled(*map(self._trace, self._trees))

    def compose_text(self) -> str:
        """Return the traces as lines of text."""
        blocks = []
        for tree in self._trees:
            title = plain_text(f"{tree.name} · trace {tree.trace_id}")
            rows = text_rows([tree], max_rows=self._max_rows)
            blocks.append("\n".join([title, fact_line(trace_facts(tree)), *rows]))
        return "\n\n".join(blocks) or "No observations."

    def _trace(self, tree: TraceTree) -> Markup:
        title = element(
            "div",
            tree.name,
            " ",
            element("span", "trace ", tree.trace_id),
            class_="rk-title",
        )
        rows = waterfall(tree, max_rows=self._max_rows, has_contents=True)
        return fragment(title, facts(trace_facts(tree)), rows)


def show(
    trace: str | pd.DataFrame | Mapping[str, Any] | pd.Series[Any] | None = None,
    *,
    max_rows: int = 200,
    **options: Unpack[SourceOptions],
) -> TraceView:
    """Return a trace as a tree with a waterfall: what called what, when, for how long, and at what cost.

    Args:
        trace: A trace id; a row of any frame that has a ``trace_id``; a frame of observations, whose traces
            are then shown without reading anything; None for the newest trace of this kernel's session.
        max_rows: How many observations of a trace to show at most.
        **options: `SourceOptions`: ``reader``, ``cache``, ``refresh``, ``progress``.

    Raises:
        ConfigError: When there is no such trace, no session is bound, or an argument cannot be used.
        BackendError: When the server cannot be read.
    """
    if max_rows < 1:
        raise ConfigError(f"max_rows is {max_rows}. Give a whole number from 1 on.")
    return TraceView(trace_trees(_observations(trace, options), "show"), max_rows=max_rows)


def _observations(trace: Any, options: SourceOptions) -> pd.DataFrame:
    if isinstance(trace, pd.DataFrame):
        return trace
    if trace is None:
        frame: pd.DataFrame = observations_df(**read_options(options))
        newest: pd.DataFrame = frame[frame["trace_id"] == _newest(frame)]
        return newest
    trace_id = trace if isinstance(trace, str) else _trace_id_of(trace)
    found: pd.DataFrame = observations_df(trace_id=trace_id, **read_options(options))
    if found.empty:
        raise ConfigError(
            f"There is no trace {trace_id!r} to show. Take an id from the column trace_id of traces_df(); "
            "a server shows new traces some seconds after they ended."
        )
    return found


def _newest(frame: pd.DataFrame) -> Any:
    if frame.empty:
        raise ConfigError(
            "Nothing has been traced in this session yet. Give a trace id, or a frame of observations."
        )
    roots = frame[frame["is_root"].fillna(False)]
    return (frame if roots.empty else roots)["trace_id"].iloc[-1]


def _trace_id_of(row: Any) -> str:
    trace_id = row.get("trace_id") if isinstance(row, (Mapping, pd.Series)) else None
    if not isinstance(trace_id, str):
        raise ConfigError(
            f"Cannot show a {type(row).__name__}. Give a trace id, a row with a trace_id, or a frame from "
            "observations_df()."
        )
    return trace_id

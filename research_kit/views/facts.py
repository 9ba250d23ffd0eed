"""The line of figures on top of a view.

Owns their order and look. Invariant: a figure that is not known is left out or a dash, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from research_kit._words import cost_text, duration_text, tokens_text
from research_kit.plain_text import plain_text
from research_kit.store.markup import Markup, element
from research_kit.views.nodes import TraceTree
from research_kit.views.texts import time_text

__all__ = ["fact_line", "facts", "trace_facts"]

Fact = tuple[str, str | None]


def facts(pairs: Sequence[Fact]) -> Markup:
    """Return name and value of each fact that has a value."""
    return element(
        "div",
        *(
            element(
                "div",
                element("b", value, class_="rk-bad" if name == "errors" else None),
                " ",
                element("span", name),
                class_="rk-fact",
            )
            for name, value in pairs
            if value
        ),
        class_="rk-facts",
    )


def fact_line(pairs: Sequence[Fact]) -> str:
    """Return the same as one line of text."""
    return " · ".join(f"{name} {plain_text(value)}" for name, value in pairs if value)


def trace_facts(tree: TraceTree) -> list[Fact]:
    """Return what one trace took."""
    return [
        ("latency", duration_text(tree.duration_s)),
        ("tokens", tokens_text(tree.input_tokens, tree.output_tokens)),
        ("cost", cost_text(tree.cost_usd, tree.unpriced_count)),
        ("LM calls", f"{tree.call_count:,}"),
        ("observations", f"{len(tree.nodes):,}"),
        ("errors", f"{tree.error_count:,}" if tree.error_count else None),
        ("user", tree.root.values["user_id"]),
        ("began", time_text(tree.start_time, has_date=True)),
    ]

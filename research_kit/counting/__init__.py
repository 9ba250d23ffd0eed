"""What counts: tokens, dollars, calls and errors in a tree of observations, decided here and nowhere else."""

from research_kit.counting.live import LiveSums
from research_kit.counting.tree import (
    Counted,
    Facts,
    Sums,
    close,
    count,
    is_lm_type,
    is_tool_side,
    parent_places,
    tool_name,
)

__all__ = [
    "Counted",
    "Facts",
    "LiveSums",
    "Sums",
    "close",
    "count",
    "is_lm_type",
    "is_tool_side",
    "parent_places",
    "tool_name",
]

"""Sums over trees while they grow: what ends is counted at once, and again when more comes inside it.

Owns the open ends of the trees; the rule is in `tree`. Invariant: when everything has ended, the changes add
up to the sums that `count` gives for the whole, in whatever order the observations ended.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from research_kit.counting.tree import Facts, Sums, close

__all__ = ["LiveSums"]

# Of so many traces it is remembered what is inside what; what ends later counts by itself.
_MOST_TRACES = 500


@dataclass(slots=True)
class _Node:
    """An observation: what is inside it, and what it is once it has ended."""

    inside: Sums = field(default_factory=Sums)
    facts: Facts | None = None
    parent_id: object = None

    def value(self) -> Sums:
        """Return the sums over it and what is inside, as far as they have ended."""
        return self.inside.copy() if self.facts is None else close(self.facts, self.inside)


class LiveSums:
    """Counts observations as they end. Not safe for threads; whoever owns it holds a lock."""

    def __init__(self) -> None:
        self._traces: OrderedDict[object, dict[object, _Node]] = OrderedDict()

    def end(self, trace_id: object, observation_id: object, parent_id: object, facts: Facts) -> Sums:
        """Count an observation that has ended.

        Args:
            trace_id: Its trace.
            observation_id: It.
            parent_id: What it happened in; None for a root.
            facts: What it is.

        Returns:
            By how much the sums over everything have changed; a measure is None when nothing of it is known.
        """
        nodes = self._nodes(trace_id)
        node = nodes.setdefault(observation_id, _Node())
        if node.facts is not None:
            return Sums()  # told twice
        alone = node.inside.copy()  # what was counted of it while it was open
        node.facts, node.parent_id = facts, parent_id
        old, new = Sums(), node.value()
        seen = {observation_id}  # parents may be circular: they are what clients say
        while node.facts is not None and node.parent_id is not None and node.parent_id not in seen:
            seen.add(node.parent_id)
            node = nodes.setdefault(node.parent_id, _Node())
            change, old = new.minus(old), node.value()
            node.inside.add(change)
            new = node.value()
        return new.minus(old).minus(alone)

    def _nodes(self, trace_id: object) -> dict[object, _Node]:
        nodes = self._traces.setdefault(trace_id, {})
        self._traces.move_to_end(trace_id)
        if len(self._traces) > _MOST_TRACES:
            self._traces.popitem(last=False)
        return nodes

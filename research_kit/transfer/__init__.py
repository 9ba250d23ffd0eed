"""Sessions from one Langfuse server to another: push and pull."""

from __future__ import annotations

from research_kit.transfer.moving import Transferred, pull, push

__all__ = ["Transferred", "pull", "push"]

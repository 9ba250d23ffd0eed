"""What a regression run does inside the kernel of the notebook: before its first cell, and after its last.

Owns the two calls and their JSON; the runner sends them. Invariant: nothing of it shows in the notebook: no
output, no execution count, no name in its namespace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research_kit import session
from research_kit.regression.expecting import watch_spans
from research_kit.regression.player import Player, current_player, open_player, start_player, stop_player
from research_kit.regression.trace_facts import sum_up

__all__ = ["begin_run", "end_run"]


def begin_run(order: str) -> None:
    """Bind the run's session, watch what it does, and replay its cassette.

    Args:
        order: A JSON object: ``session_id``, ``tags``, ``metadata``, and ``cassette`` with ``path``,
            ``record`` and ``replays_latency``, or null.

    Raises:
        ConfigError: When a value cannot be used.
    """
    values = json.loads(order)
    # DSPy would otherwise fetch a price list from the network, and warn in a cell when it cannot.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    session.bind(values["session_id"], tags=values["tags"], metadata=values["metadata"])
    watch_spans()
    cassette: Mapping[str, Any] | None = values["cassette"]
    if cassette is not None:
        start_player(
            open_player(
                Path(cassette["path"]),
                record=cassette["record"],
                replays_latency=cassette["replays_latency"],
            )
        )


def end_run(is_complete: bool) -> str:
    """Deliver what has ended, close the cassette, and say what the run did, as JSON.

    Args:
        is_complete: Whether every cell has run.
    """
    player = current_player()
    stop_player(is_complete=is_complete)
    session.flush()
    status = session.status()
    return json.dumps(
        {
            "facts": sum_up(watch_spans().observed()).as_json(),
            "replay": None if player is None else _replay(player),
            "session_url": status.session_url,
        }
    )


def _replay(player: Player) -> dict[str, Any]:
    return {
        "path": str(player.path),
        "replayed_count": player.replayed_count,
        "recorded_count": player.recorded_count,
        "unused_count": player.unused_count,
        "unused": player.describe_unused(),
        "misses": player.misses,
    }

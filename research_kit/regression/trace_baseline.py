"""The accepted numbers of a notebook's traces, and whether a run keeps to them.

Owns the file ``<name>.trace.json`` and the comparison. Invariant: accepting the same run twice writes the
same bytes; latencies are not in it, because they are the machine's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from research_kit.errors import ConfigError
from research_kit.regression.trace_facts import TraceFacts

__all__ = ["compare_traces", "read_trace_baseline", "write_trace_baseline"]

# Cost in US dollars to the billionth: prices are per million tokens.
_COST_DIGITS = 9


def write_trace_baseline(path: Path, facts: TraceFacts) -> None:
    """Write the numbers of ``facts`` as the accepted ones.

    Raises:
        ConfigError: When the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{json.dumps(_accepted(facts), indent=1)}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write the baseline {str(path)!r}: {error.strerror}. "
            "Correct expected_dir or its permissions."
        ) from error


def read_trace_baseline(path: Path) -> dict[str, Any] | None:
    """Return the accepted numbers; None when there are none.

    Raises:
        ConfigError: When the file cannot be read.
    """
    try:
        accepted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot read the baseline {str(path)!r}: {error}. Restore it, or delete it and accept again."
        ) from error
    if not isinstance(accepted, dict) or set(accepted) != set(_accepted(TraceFacts())):
        raise ConfigError(
            f"{str(path)!r} is no baseline of traces. Restore it, or delete it and accept again."
        )
    return accepted


def compare_traces(
    accepted: dict[str, Any], facts: TraceFacts, *, tolerance: float, is_replayed: bool
) -> tuple[str, ...]:
    """Return a sentence for everything in which a run does not keep to the accepted numbers.

    Args:
        accepted: The baseline.
        facts: The run.
        tolerance: By which part cost and tokens may exceed the accepted ones.
        is_replayed: Whether all answers came from a cassette. Then the calls are the same, one by one; a
            live model may take another way, so of it only the set of tools is compared.
    """
    return tuple(
        [*_dearer(accepted, facts, tolerance), *_other_calls(accepted, _accepted(facts), is_replayed)]
    )


def _dearer(accepted: dict[str, Any], facts: TraceFacts, tolerance: float) -> Iterator[str]:
    for name, actual in (("cost_usd", facts.cost_usd), ("total_tokens", facts.total_tokens)):
        before = accepted[name]
        if actual > before * (1 + tolerance) + 10**-_COST_DIGITS:
            by = f" (+{100 * (actual / before - 1):.0f} %)" if before else ""
            yield f"{name}: {actual:.6g}, accepted were {before:.6g}{by}; trace_tolerance is {tolerance:g}."


def _other_calls(accepted: dict[str, Any], actual: dict[str, Any], is_replayed: bool) -> Iterator[str]:
    if actual["models"] != accepted["models"]:
        yield f"models: {_names(actual['models'])}, accepted were {_names(accepted['models'])}."
    before, after = accepted["tools"], actual["tools"]
    if (before != after) if is_replayed else (set(before) != set(after)):
        yield f"tools called: {_names(after)}, accepted were {_names(before)}."
    if is_replayed and actual["lm_calls"] != accepted["lm_calls"]:
        yield f"language model calls: {actual['lm_calls']}, accepted were {accepted['lm_calls']}."
    if actual["errors"] > accepted["errors"]:
        yield f"failed observations: {actual['errors']}, accepted were {accepted['errors']}."


def _accepted(facts: TraceFacts) -> dict[str, Any]:
    return {
        "cost_usd": round(facts.cost_usd, _COST_DIGITS),
        "total_tokens": facts.total_tokens,
        "lm_calls": facts.lm_call_count,
        "models": list(facts.models),
        "tools": list(facts.tools),
        "errors": len(facts.errors),
    }


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"

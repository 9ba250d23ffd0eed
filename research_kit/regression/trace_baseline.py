"""The accepted numbers of a notebook's traces, and whether a run keeps to them.

Owns the file ``<name>.trace.json`` and the comparison. Invariant: accepting the same run twice writes the
same bytes; latencies, which are the machine's, are only in it when runs were repeated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_kit.errors import ConfigError
from research_kit.regression.significance import Comparison, compare_samples
from research_kit.regression.trace_facts import TraceFacts

__all__ = [
    "Tolerances",
    "compare_repeats",
    "compare_traces",
    "read_trace_baseline",
    "write_trace_baseline",
]

# Cost in US dollars to the billionth: prices are per million tokens.
_COST_DIGITS = 9
_LATENCY = "lm_latency_p50_s"
_RESOLUTIONS = {"cost_usd": 10**-_COST_DIGITS, "total_tokens": 10**-_COST_DIGITS, _LATENCY: 0.001}
_REPEATS = "repeats"
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """By which part accepted numbers may be exceeded.

    Attributes:
        trace: Cost and tokens (``trace_tolerance``).
        latency: Latency (``latency_tolerance``).
    """

    trace: float
    latency: float = 0.5


def write_trace_baseline(path: Path, facts: TraceFacts, repeats: Sequence[TraceFacts] = ()) -> None:
    """Write the numbers of ``facts`` as the accepted ones.

    Args:
        path: The file.
        facts: The run whose outputs are accepted.
        repeats: All runs, when a live model was asked several times.

    Raises:
        ConfigError: When the file cannot be written.
    """
    accepted = _accepted(facts)
    if len(repeats) > 1:
        accepted[_REPEATS] = _samples(repeats)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{json.dumps(accepted, indent=1)}\n", encoding="utf-8")
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
    if not _is_baseline(accepted):
        raise ConfigError(
            f"{str(path)!r} is no baseline of traces. Restore it, or delete it and accept again."
        )
    known: dict[str, Any] = accepted
    return known


def compare_traces(
    accepted: dict[str, Any],
    facts: TraceFacts,
    *,
    tolerance: float,
    is_replayed: bool,
    is_repeated: bool = False,
) -> tuple[str, ...]:
    """Return a sentence for everything in which a run does not keep to the accepted numbers.

    Args:
        accepted: The baseline.
        facts: The run.
        tolerance: By which part cost and tokens may exceed the accepted ones.
        is_replayed: Whether all answers came from a cassette. Then the calls are the same, one by one; a
            live model may take another way, so of it only the set of tools is compared.
        is_repeated: Whether cost and tokens are left to `compare_repeats`, which sees the other runs too.
    """
    # The cassette is that of the run whose numbers stand first.
    before = {key: value for key, value in accepted.items() if key != _REPEATS} if is_replayed else accepted
    dearer = () if is_repeated else _dearer(before, [facts], Tolerances(trace=tolerance))
    return tuple([*dearer, *_other_calls(accepted, _accepted(facts), is_replayed)])


def compare_repeats(
    accepted: dict[str, Any], runs: Sequence[TraceFacts], tolerances: Tolerances
) -> tuple[str, ...]:
    """Return a sentence for each of cost, tokens and latency that is worse over several live runs.

    Args:
        accepted: The baseline. Latency is compared when it holds repeated runs as well.
        runs: The runs.
        tolerances: A mean has to exceed the accepted one by more, and not by chance.
    """
    return tuple(_dearer(accepted, runs, tolerances))


def _dearer(accepted: dict[str, Any], runs: Sequence[TraceFacts], by: Tolerances) -> Iterator[str]:
    before: Samples = accepted.get(_REPEATS) or {key: [accepted[key]] for key in ("cost_usd", "total_tokens")}
    for name, after in _samples(runs).items():
        is_latency = name == _LATENCY
        # The latency of one run, or an accepted one of another machine's day, says nothing.
        if not after or not before.get(name) or (is_latency and len(runs) < 2):
            continue
        found = compare_samples(before[name], after)
        tolerance = by.latency if is_latency else by.trace
        if found.is_worse(tolerance=tolerance, resolution=_RESOLUTIONS[name]):
            setting = "latency_tolerance" if is_latency else "trace_tolerance"
            yield f"{_describe(name, found)}; {setting} is {tolerance:g}."


def _describe(name: str, found: Comparison) -> str:
    change = "" if found.change is None else f"+{100 * found.change:.0f} %"
    if found.before_count == found.after_count == 1:
        by = f" ({change})" if change else ""
        return f"{name}: {found.after:.6g}, accepted were {found.before:.6g}{by}"
    by = ", ".join(part for part in (change, f"p = {found.p_value:.2g}") if part)
    return (
        f"{name}: {_mean(found.after, found.after_count)}, "
        f"accepted were {_mean(found.before, found.before_count)} ({by})"
    )


def _mean(value: float, count: int) -> str:
    return f"{value:.6g}" if count == 1 else f"{value:.6g} on average of {count} runs"


def _samples(runs: Sequence[TraceFacts]) -> dict[str, list[float]]:
    return {
        "cost_usd": [round(one.cost_usd, _COST_DIGITS) for one in runs],
        "total_tokens": [one.total_tokens for one in runs],
        _LATENCY: [round(one.lm_latency_p50_s, 3) for one in runs if one.lm_latency_p50_s is not None],
    }


def _is_baseline(accepted: object) -> bool:
    if not isinstance(accepted, dict) or set(accepted) - {_REPEATS} != set(_accepted(TraceFacts())):
        return False
    if _REPEATS not in accepted:
        return True
    samples = accepted[_REPEATS]
    return (
        isinstance(samples, dict)
        and set(samples) == set(_RESOLUTIONS)
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in samples.values())
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
